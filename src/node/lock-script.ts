/**
 * A piece of shell that waits for the lock on a file, for so many seconds at most: it goes on with the lock held through the
 * descriptor, or ends the script with 75. Without `flock` there is no lock. The flock of busybox knows no `-w`.
 */
export function lockScript(descriptor: number, file: string, seconds: number): string {
  return `
if command -v flock >/dev/null 2>&1; then
  waited=0 waited_for=${file}
  exec ${descriptor}>>"$waited_for"
  until flock -n ${descriptor}; do
    [ "$waited" -lt ${seconds * 10} ] || { echo "$waited_for is locked" >&2; exit 75; }
    if sleep 0.1 2>/dev/null; then waited=$((waited + 1)); else sleep 1; waited=$((waited + 10)); fi
  done
fi
`
}
