#!/bin/sh
# Registers a media server that cannot do it itself, for as long as it runs on
# this host. Nothing is sent while the process is not there, so that srsx sees
# it die; a restarted process is a new run, whose streams are placed anew.
#
#   PROCESS=nginx IP=10.0.0.5 RTMP=1935 HTTP=8080 PEER=http://10.0.0.1:12025 sh register-origin.sh
set -eu
: "${PEER:=http://127.0.0.1:12025}" # any peer's system API
: "${TOKEN:=}"                      # -register-token of the peer, if it has one
: "${ID:=$(hostname)}"              # server id: unique among the origins, kept for ever
: "${PROCESS:?name of the process, such as nginx}"
: "${IP:?address at which peers reach this host}"
: "${RTMP:=1935}"
: "${HTTP:=}" # port of HTTP-FLV and HLS; empty: none
: "${INTERVAL:=9}"

while :; do
    if pid=$(pgrep -o -x "$PROCESS"); then
        # A pid alone may repeat, in a container it always does: the start time
        # of the process (field 22 of its stat, behind the name) tells runs apart.
        began=$(sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 20)
        http=${HTTP:+",\"http\":[\"$HTTP\"]"}
        curl -sS -m 5 -o /dev/null -f -H 'Content-Type: application/json' \
            -d "{\"ip\":\"$IP\",\"server\":\"$ID\",\"service\":\"$began\",\"pid\":\"$pid\",\"rtmp\":[\"$RTMP\"]$http}" \
            "$PEER/api/v1/srs/register${TOKEN:+/$TOKEN}" || true # the next one may come through
    fi
    sleep "$INTERVAL"
done
