# Read by bin/NAME with folder (that of the script, absolute) and self (its path) set; becomes the program.
#
# Libraries come from the bundle first, then from LD_LIBRARY_PATH. CUDA's are in no bundle: they are looked for in
# THORAX_CUDA_LIBRARIES (folders with colons between them), a Python or conda environment that is active, the usual places of the
# toolkit, and those of Python packages; the driver where distributions put it. Nothing but the shell is needed for that.
major=@CUDA_MAJOR@
root=${folder%/*}
path=$root/lib later=

# An empty part would mean the current folder.
append_path() {
    rest=$1:
    while [ -n "$rest" ]; do
        part=${rest%%:*} rest=${rest#*:}
        [ -z "$part" ] || path=$path:$part
    done
}

# Folders of one installation that hold any of CUDA's libraries. Those of one with the runtime that this bundle was built for go before
# all others, because cuDNN and NCCL have the same names for every CUDA.
add_folders() {
    here='' right=no
    for candidate; do
        for library in "$candidate"/libcudart.so.* "$candidate"/libcublas.so.* "$candidate"/libcudnn.so.* \
            "$candidate"/libnccl.so.* "$candidate"/libnvrtc.so.* "$candidate"/libcupti.so.*; do
            [ -e "$library" ] || continue
            here=$here:$candidate
            [ ! -e "$candidate/libcudart.so.$major" ] || right=yes
            break
        done
    done
    if [ $right = yes ]; then append_path "$here"; else later=$later:$here; fi
}

append_path "${THORAX_CUDA_LIBRARIES:-}"
append_path "${LD_LIBRARY_PATH:-}"
if [ "$major" != 0 ]; then
    for environment in ${VIRTUAL_ENV:+"$VIRTUAL_ENV"} ${CONDA_PREFIX:+"$CONDA_PREFIX"}; do
        add_folders "$environment/lib" "$environment"/lib/python3*/site-packages/nvidia/*/lib
    done
    for toolkit in /usr/local/cuda /usr/local/cuda-* /opt/cuda; do
        add_folders "$toolkit/lib64" "$toolkit/lib" "$toolkit/extras/CUPTI/lib64"
    done
    for packages in ${HOME:+"$HOME"/.local/lib/python3*/site-packages} /usr/local/lib/python3*/site-packages \
        /usr/local/lib/python3*/dist-packages /usr/local/lib64/python3*/site-packages /usr/lib/python3*/site-packages \
        /usr/lib64/python3*/site-packages /usr/lib/python3/dist-packages; do
        add_folders "$packages"/nvidia/*/lib
    done
    append_path "$later"
    for driver in /usr/lib64 /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64/nvidia /usr/lib/wsl/lib /run/opengl-driver/lib; do
        [ ! -e "$driver/libcuda.so.1" ] && [ ! -e "$driver/libcudart.so.$major" ] || append_path "$driver"
    done
fi

# For the program to start itself again: /proc/self/exe is the loader.
THORAX_PROGRAM=$folder/${self##*/}
export THORAX_PROGRAM
exec "$root/lib/@LOADER@" --library-path "$path" "$root/libexec/${self##*/}" "$@"
