# Read by gpu-check: how fast training and inference are, beside the machine's limits and PyTorch in the same run.
#
# A row is "mode architecture precision batch ms" in a file a party: ours, compiled and eager PyTorch. Whoever cannot do something has
# no row for it, and why stands in the report.

if [ $in_bundle = yes ]; then counter=$here/lib/libthorax-launches.so; else counter=$build/tests/gpu/libthorax-launches.so; fi

is_emulated() { case $device in *'CPU emulation'*) return 0 ;; *) return 1 ;; esac; }

# JSON of train, infer and torch_peer.py to rows.
rows_of() { # MODE ARCHITECTURE PRECISION FILE
    sed -n 's/.*"batch": \([0-9]*\), "ms": \([0-9.]*\),.*/\1 \2/p' "$4" | while read -r batch ms; do echo "$1 $2 $3 $batch $ms"; done
}
note() { # WHO MODE ARCHITECTURE PRECISION BATCHES FILE: why something was not measured
    printf '%s %s %s %s, batch %s: %s\n' "$1" "$2" "$3" "$4" "$5" "$(last_line "$6")" >>"$work/notes"
}

# All sizes in one process, interleaved; where that does not fit into memory, each by itself.
measure_ours() { # MODE ARCHITECTURE PRECISION
    for sizes in "$batches" $(echo "$batches" | tr ',' ' '); do
        if limited 900 "$(program "$1")" --device cuda --architecture "$2" --precision "$3" --batch "$sizes" --rounds 5 --json \
            >"$work/out" 2>"$work/log"; then
            rows_of "$1" "$2" "$3" "$work/out" >>"$work/ours"
            [ "$sizes" != "$batches" ] || return 0
        else
            note thorax "$1" "$2" "$3" "$sizes" "$work/log"
            # What the device does not compute in at all is no matter of size.
            ! grep -q '[Pp]recision' "$work/log" || return 1
        fi
    done
}

has_torch() { "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1; }

measure_torch() { # HOW MODE ARCHITECTURE PRECISION
    limited 1200 "$python" "$files/tests/gpu/torch_peer.py" --how "$1" --mode "$2" --architecture "$3" --precision "$4" \
        --batch "$peer_batches" >"$work/out" 2>"$work/peer" || note "PyTorch $1" "$2" "$3" "$4" "$peer_batches" "$work/peer"
    rows_of "$2" "$3" "$4" "$work/out" >>"$work/$1"
    [ -s "$work/torch" ] || sed -n 's/.*"version": "\([^"]*\)".*/\1/p' "$work/out" >"$work/torch"
}

# Launches of a step or run: what eleven of them hand to the GPU less what one does, by ten; "null" where there is no CUPTI.
launches_of() { # MODE ARCHITECTURE PRECISION BATCH
    for runs in 1 11; do
        rm -f "$work/launches-$runs"
        echo "run $runs" | CUDA_INJECTION64_PATH=$counter THORAX_LAUNCHES=$work/launches-$runs limited 300 "$(program "$1")" --device cuda \
            --architecture "$2" --precision "$3" --batch "$4" --serve >/dev/null 2>&1
    done
    cat "$work/launches-1" "$work/launches-11" 2>/dev/null |
        awk '{ sum[NR] = $1 + $2 } END { if (NR == 2 && sum[2] > sum[1]) print (sum[2] - sum[1]) / 10; else print "null" }'
}

ms_of() { # WHO MODE ARCHITECTURE PRECISION BATCH; "null" where there is none
    awk -v key="$2 $3 $4 $5" '$1 " " $2 " " $3 " " $4 == key { print $5; found = 1; exit } END { if (!found) print "null" }' "$work/$1"
}

# "floor_ms flops bytes peak_flops peak_bytes" of a row, from first principles; "null ..." for machines whose peaks are not known.
limits_of() { # MODE ARCHITECTURE PRECISION BATCH
    infer=''
    [ "$1" != infer ] || infer=--infer
    "$(program costs)" --json $infer --architecture "$2" --precision "$3" --batch "$4" --device-name "$device" >"$work/costs" 2>/dev/null
    for key in floor_ms flops bytes peak_flops peak_bytes_per_s; do
        value=$(sed -n "s/^ .*\"$key\": \([0-9.e+-]*\)[,}].*/\1/p" "$work/costs" | head -n 1)
        printf '%s ' "${value:-null}"
    done
}

# Adds shares of the peaks and PyTorch's times to our rows; writes the report's list and the table.
conclude() {
    printf '{"torch": %s, "notes": %s, "rows": [' "$(text_json "$(cat "$work/torch")")" "$(text_json "$(tr '\n' ';' <"$work/notes")")" >"$work/found"
    printf '%-6s %-9s %-5s %5s %9s %9s %8s %8s %8s %9s %9s %8s\n' mode network type batch ms images/s floor/ms of-flops of-bytes compiled eager launches >"$work/table"
    separator=''
    while read -r mode architecture precision batch ms; do
        echo "$mode $architecture $precision $batch $ms $(limits_of "$mode" "$architecture" "$precision" "$batch")" \
            "$(ms_of compiled "$mode" "$architecture" "$precision" "$batch") $(ms_of eager "$mode" "$architecture" "$precision" "$batch")" \
            "$(launches_of "$mode" "$architecture" "$precision" "$batch")"
    done <"$work/ours" | while read -r row; do
        echo "$row" | awk -v separator="$separator" -v table="$work/table" '
            function share(part, whole) { return part == "null" || whole == "null" ? "null" : sprintf("%.4f", part / whole) }
            function short(number) { return number == "null" ? "-" : sprintf("%.3f", number) }
            {
                ms = $5
                floor = share($6, ms)
                flops = $9 == "null" ? "null" : share($7, $9 * ms / 1000)
                bytes = $10 == "null" ? "null" : share($8, $10 * ms / 1000)
                printf "%s\n  {\"mode\": \"%s\", \"architecture\": \"%s\", \"precision\": \"%s\", \"batch\": %s, \"ms\": %s, \"images_per_s\": %.1f, ", separator, $1, $2, $3, $4, ms, $4 * 1000 / ms
                printf "\"floor_ms\": %s, \"share_of_arithmetic_peak\": %s, \"share_of_memory_peak\": %s, ", $6, flops, bytes
                printf "\"torch_compiled_ms\": %s, \"torch_eager_ms\": %s, \"launches\": %s}", $11, $12, $13
                printf "%-6s %-9s %-5s %5d %9.3f %9.1f %8s %8s %8s %9s %9s %8s\n", $1, $2, $3, $4, ms, $4 * 1000 / ms, short(floor), short(flops), short(bytes), short($11), short($12), ($13 == "null" ? "-" : $13) >>table
            }'
        separator=,
    done >>"$work/found"
    printf ']}' >>"$work/found"
}

# Nothing is timed: only that the programs which measure run on the device.
try_programs() {
    for mode in train infer; do
        limited 900 "$(program $mode)" --device cuda --architecture resnet18 --size 32 --batch 2 --rounds 1 --json >"$work/out" 2>"$work/log" ||
            { fail "$mode: $(last_line "$work/log")"; return; }
    done
    "$(program costs)" --json --batch 2 --device-name "$device" >"$work/out" 2>"$work/log" || { fail "costs: $(last_line "$work/log")"; return; }
}

in_time() { [ -z "$seconds_most" ] || [ $(($(date +%s) - begun)) -lt "$seconds_most" ]; }

check_benchmark() {
    try_programs || return
    if [ $quick = yes ]; then
        pass "the programs run; nothing was timed"
        return
    elif is_emulated; then
        pass "the programs run; a CPU that emulates a GPU says nothing of its speed, so nothing was timed"
        return
    fi
    for file in ours compiled eager notes torch; do : >"$work/$file"; done
    peers=''
    ! has_torch || peers='compiled eager'
    [ -n "$peers" ] || echo "no PyTorch with CUDA in $python" >"$work/notes"
    begun=$(date +%s)
    for case in 'resnet50 bf16' 'resnet50 f32' 'resnet18 bf16' 'resnet18 f32' 'resnet50 f16' 'resnet18 f16'; do
        for mode in train infer; do
            in_time || { echo "$mode ${case}: no time was left" >>"$work/notes"; continue; }
            measure_ours $mode ${case% *} ${case#* } || continue
            for how in $peers; do ! in_time || measure_torch $how $mode ${case% *} ${case#* }; done
        done
    done
    [ -s "$work/ours" ] || { fail "$(tail -n 1 "$work/notes")"; return; }
    conclude
    pass "$(grep -c . "$work/ours") figures${peers:+, beside PyTorch $(cat "$work/torch")}"
}
