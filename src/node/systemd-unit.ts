/**
 * `unit_of DATA GUESS` prints the name of the systemd unit that serves a data directory: the one that names it as its PGDATA, in its
 * own file or a drop-in; else the guess, unless that one names another directory. Where nothing was guessed, nothing else will do.
 */
export const systemdUnitScript = `
unit_of() {
  other=
  for file in "\${root-}"/etc/systemd/system/postgresql*.service "\${root-}"/usr/lib/systemd/system/postgresql*.service \\
    "\${root-}"/lib/systemd/system/postgresql*.service "\${root-}"/etc/systemd/system/postgresql*.service.d/*.conf; do
    [ -r "$file" ] || continue
    name=\${file##*/}
    case $file in *.service.d/*) name=\${file%.d/*}; name=\${name##*/} ;; esac
    name=\${name%.service}
    while IFS= read -r line; do
      case $line in
        Environment=PGDATA=* | 'Environment="PGDATA='*) line=\${line#*PGDATA=}; line=\${line%\\"}; line=\${line%/} ;;
        *) continue ;;
      esac
      if [ "$line" = "$1" ]; then printf '%s\\n' "$name"; return; fi
      [ "$name" != "$2" ] || other=$line
    done < "$file"
  done
  [ -n "$2" ] || return 1
  if [ -n "$other" ]; then
    echo "the unit $2 serves $other, not $1, and no unit names $1 as its PGDATA" >&2
    return 1
  fi
  printf '%s\\n' "$2"
}
`
