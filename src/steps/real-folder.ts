/**
 * `real_folder PATH`: the folder that is meant where a data directory is a link to another disk. What is renamed, and what is made in
 * its place, is that folder: a renamed link would let the next copy land on the disk that the link is on, and never free the other
 * one. `find` and `rmdir`, too, do nothing behind a link that is named to them without a slash.
 */
export const realFolderScript = `
real_folder() { { [ -L "$1" ] && readlink -f -- "$1"; } || printf '%s\\n' "$1"; }
`
