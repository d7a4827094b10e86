#pragma once

/**
 * `trainctl phantom`: draws a synthetic data set in the layout
 * {train,val,test}/{NORMAL,PNEUMONIA,INVALID}/phantomN-M.png, where N is a made-up patient and M one of its
 * films. argv[0] is "phantom". Returns the exit code: 0, 1 (failed; one line on stderr says why) or 2 (wrong
 * usage).
 */
int command_phantom(int argc, char **argv);
