#!/bin/sh
# PostgreSQL of node {{ node }} of cluster {{ cluster }}, through replctl's start guard. Do not edit: it is rendered again.
# pg_ctl runs it in the server's place: pg_ctl start -D {{ data_directory }} -p {{ state_directory }}/guarded-postgres
# (on Debian by pg_ctl_options in pg_ctl.conf). It ends by becoming the server, so pid and exit status are the server's.
state={{ state_directory | shell }}
data={{ data_directory | shell }}
bin={{ bin_directory | shell }}
server=$bin/postgres
given=${PGDATA:-}
previous=
for word; do
  case $word in
    # Questions, and the single-user mode of a repair by hand, are none of the guard's business.
    -C* | -V | --version | '-?' | --help | --describe-config | --single | --boot | --check) exec "$server" "$@" ;;
    -D?*) given=${word#-D} ;;
    *) [ "$previous" != -D ] || given=$word ;;
  esac
  previous=$word
done
# Another instance that was given this file with a copied pg_ctl.conf (pg_upgradecluster): not this node's.
if [ -n "$given" ] && [ -r "$given/PG_VERSION" ] && [ "$(cd -P -- "$given" && pwd -P)" != "$(cd -P -- "$data" 2>/dev/null && pwd -P)" ]; then
  read -r version <"$given/PG_VERSION"
  for place in "/usr/lib/postgresql/$version/bin" "/usr/pgsql-$version/bin" "$bin"; do
    [ -x "$place/postgres" ] && exec "$place/postgres" "$@"
  done
fi
"$state/start-guard" </dev/null || {
  status=$?
  [ -x "$state/start-guard" ] || echo "replctl start guard: cannot run $state/start-guard; replctl add-standby or init primary renders it again" >&2
  exit "$status"
}
exec "$server" "$@"
