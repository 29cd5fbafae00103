#!/bin/sh
# Real phones, servers and a browser for the tests, from the distribution, where we may install them, and an MCP server
# from npm. Without apt, root or npm nothing happens: each test whose tool is missing says so.
want="baresip-core sip-tester kamailio kamailio-tls-modules linphone-cli chromium sox postgresql openssh-client tcpdump"
command -v npm >/dev/null 2>&1 || want="$want nodejs npm"
have() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'; }

packages() {
    command -v apt-get >/dev/null 2>&1 || return
    missing=""
    for package in $want; do have "$package" || missing="$missing $package"; done
    [ -z "$missing" ] && return

    if [ "$(id -u)" = 0 ]; then root=""; elif sudo -n true 2>/dev/null; then root="sudo"; else
        echo "These tests' tools are not installed:$missing (as root: apt-get install$missing)"
        return
    fi
    echo "Installing for the tests:$missing"
    $root apt-get update -qq
    # One by one, so that a package this distribution lacks does not keep the others away.
    for package in $missing; do
        $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            echo "could not install $package"
    done
}

everything() {
    package="@modelcontextprotocol/server-everything"
    [ -e "var/npm/node_modules/$package" ] && return
    command -v npm >/dev/null 2>&1 || return
    echo "Installing for the tests: $package"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix var/npm "$package@2026.8.31" ||
        echo "could not install $package"
}

packages
everything
exit 0
