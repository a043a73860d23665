#!/usr/bin/env bash
# Installs the real parts that the tests run against: origins, encoders,
# players, a browser. Quick when all is there; safe to run again.
# Debian packages go into the system (as root or with sudo), what is built
# from Go sources goes into .tools/bin of the checkout.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
tools=$root/.tools/bin

# One line a part: the file that proves it is there, then its package.
# dri is software OpenGL, without which OBS does not start under Xvfb.
parts='
/usr/bin/ffmpeg                      ffmpeg
/usr/bin/srt-live-transmit           srt-tools
/usr/bin/redis-server                redis-server
/usr/sbin/nginx                      nginx
/usr/lib/nginx/modules/ngx_rtmp_module.so libnginx-mod-rtmp
/usr/sbin/haproxy                    haproxy
/usr/sbin/nft                        nftables
/sbin/ip                             iproute2
/bin/ping                            iputils-ping
/usr/bin/chromium                    chromium
/usr/bin/curl                        curl
/usr/bin/pgrep                       procps
/usr/bin/obs                         obs-studio
/usr/bin/Xvfb                        xvfb
/usr/lib/*/dri/swrast_dri.so         libgl1-mesa-dri
/usr/bin/gst-launch-1.0              gstreamer1.0-tools
/usr/lib/*/gstreamer-1.0/libgstvideotestsrc.so gstreamer1.0-plugins-base
/usr/lib/*/gstreamer-1.0/libgstflv.so          gstreamer1.0-plugins-good
/usr/lib/*/gstreamer-1.0/libgstrtmp2.so        gstreamer1.0-plugins-bad
/usr/lib/*/gstreamer-1.0/libgstx264.so         gstreamer1.0-plugins-ugly
/usr/lib/*/gstreamer-1.0/libgstlibav.so        gstreamer1.0-libav
'

missing_packages() {
    local file package
    while read -r file package; do
        [[ -n $file ]] || continue
        # The pattern may hold a * for the architecture's folder.
        compgen -G "$file" >/dev/null || echo "$package"
    done <<<"$parts"
}

install_packages() {
    local sudo=() missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    echo "missing: ${missing[*]}"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || {
            echo "run as root or install sudo, or install by hand: ${missing[*]}" >&2
            exit 1
        }
        sudo=(sudo)
    fi
    # RUNLEVEL=1: nginx and redis must not start as services; the tests run
    # their own.
    local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get
        -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -qq)
    "${apt[@]}" update
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]})); then
        echo "still missing after the installation: ${missing[*]}" >&2
        exit 1
    fi
}

# lalserver comes from a module of its own, so that none of its requirements
# enter ours.
install_lalserver() {
    [[ -x $tools/lalserver && $tools/lalserver -nt $root/test/tools/lal/go.mod ]] && return
    echo "building lalserver"
    mkdir -p "$tools"
    (cd "$root/test/tools/lal" &&
        CGO_ENABLED=0 go build -o "$tools/lalserver" github.com/q191201771/lal/app/lalserver)
    touch "$tools/lalserver"
}

install_packages
install_lalserver
echo "all parts of the tests are installed"
