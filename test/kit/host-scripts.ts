/**
 * The holder: owns the run's directory, the network switch between the hosts, and their life. Runs in a network
 * namespace of its own, so the machine's firewall never sees what one host says to another.
 * Prints the directory, then waits for the end of standard input: that comes also when the test process is killed. Then all
 * hosts end (they watch the other end of `alive`), the namespaces with their interfaces vanish, and the directory is removed.
 * `$1` is the folder to make the directory in, `$2` the folder for the upper layers of the hosts' roots (where the first is
 * itself on an overlay it cannot hold these), `$3` is `keep` to live on after the test process.
 * The directory's name holds the holder's pid and start time, so that leftovers are told from live runs.
 */
export const holderScript = `
set -eu
read -r stat </proc/$$/stat
set -- "$1" "$2" "$3" \${stat##*) }
mode=$3 run=$1/replctl-hosts-$$-\${23} layers=$2/replctl-hosts-$$-\${23}-layers
mkdir -m 755 "$run" "$layers"
mkfifo -m 600 "$run/alive"
exec 3<>"$run/alive"
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
echo "$run"
if [ "$mode" = keep ]; then
  exec >/dev/null 2>&1
  while :; do sleep 86400 3>&- & wait $! || break; done
else
  cat >/dev/null 3>&- || :
fi
exec 3>&-
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf -- "$run" "$layers" 2>/dev/null && exit 0
  sleep 0.1
done
`

/**
 * Pid 1 of a host. Makes its root from the machine's, turns into it, starts sshd, and then reaps zombies until it is
 * killed or the holder ends. `$1` is the host's directory, `$2` the run's, `$3` its layers, `$4` the host name; `<host>/places` lists folders that are
 * bound from `<host>/disk`, `<host>/volumes` lines `path kind` of small volumes, `<host>/without` files to remove.
 */
export const initScript = `
set -eu
host=$1 run=$2 layers=$3 name=$4 root=$1/root
read -r pid rest </proc/self/stat   # the machine's /proc is still mounted: this is the pid as the machine sees it
echo "pid $pid"
exec 3<"$run/alive"
hostname "$name"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" "$root"
while read -r path; do
  mkdir -p "$root$path"
  mount --bind "$host/disk$path" "$root$path"
done <"$host/places"
while read -r path kind; do
  mkdir -p "$root$path"
  case $kind in
    tmpfs,*) mount -t tmpfs -o "size=\${kind#tmpfs,},mode=755" tmpfs "$root$path" ;;
    *) mount -o loop "$host/$kind" "$root$path" ;;
  esac
  rmdir "$root$path/lost+found" 2>/dev/null || :
  chown postgres:postgres "$root$path"
done <"$host/volumes"
while read -r path; do rm -rf -- "$root$path"; done <"$host/without"

mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/machine" "$root/run/sshd" "$root/run/lock" "$root/run/postgresql"
chmod 1777 "$root/run/lock"
chown postgres:postgres "$root/run/postgresql"
chmod 2775 "$root/run/postgresql"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys" 2>/dev/null || :
cd "$root"
pivot_root . run/machine
cd /
umount -l /run/machine
rmdir /run/machine
ip link set lo up
/usr/sbin/sshd 3<&-
echo ready
exec >/dev/null 2>&1 </dev/null
cat <&3 >/dev/null &
exec 3<&-
wait $! || :
`
