#!/usr/bin/env bash
# One model on two hosts: the commands, and two network namespaces with a cable between them that stand for the hosts.
# It asks the server, kills the second host's rank, asks again: the answers must be the same. Needs root, iproute2, curl
# and the default model; `MODEL=/path examples/two-hosts.sh` takes another.
set -euo pipefail

folder=$(mktemp -d)
head -c 32 /dev/urandom | base64 > "$folder/token" && chmod 600 "$folder/token"   # every host has a copy
model=(${MODEL:+--model "$MODEL"})

first() { ip netns exec pagedcore-a "$@"; }    # on real hosts: ssh
second() { ip netns exec pagedcore-b "$@"; }

serve() {    # the first host: rank 0, which listens for the others and serves HTTP
  first pagedcore serve "${model[@]}" --port 8000 --served-model-name demo --threads 1 --kv-cache-memory 64MiB \
    --tensor-parallel 2 --rank-address 10.78.0.1:29500 --rank-token-file "$folder/token"
}
work() {     # the second host: a supervisor keeps it there
  while ! second pagedcore worker "${model[@]}" --threads 1 --connect 10.78.0.1:29500 --token-file "$folder/token"; do :; done
}

ask() {
  first curl -sS --max-time 120 http://127.0.0.1:8000/v1/completions -H 'content-type: application/json' \
    -d '{"model": "demo", "prompt": "The capital of France is", "max_tokens": 24, "temperature": 0}' |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["text"])'
}

clean_up() {
  trap - EXIT
  kill "${jobs[@]}" 2> "$folder/nobody" || true
  pids=$( (ip netns pids pagedcore-a; ip netns pids pagedcore-b) 2> "$folder/nobody" || true)
  for pid in $pids; do kill -9 "$pid" || true; done
  ip netns del pagedcore-a || true
  ip netns del pagedcore-b || true
  rm -rf "$folder"
}
jobs=()
trap clean_up EXIT

ip netns add pagedcore-a
ip netns add pagedcore-b
ip link add cable-a netns pagedcore-a type veth peer name cable-b netns pagedcore-b
ip -n pagedcore-a addr add 10.78.0.1/24 dev cable-a
ip -n pagedcore-b addr add 10.78.0.2/24 dev cable-b
for name in a b; do
  ip -n "pagedcore-$name" link set "cable-$name" up
  ip -n "pagedcore-$name" link set lo up
done

serve & jobs+=($!)
work & jobs+=($!)
for _ in $(seq 600); do
  first curl -sS -o "$folder/health" http://127.0.0.1:8000/health 2> "$folder/nobody" && break
  sleep 0.5
done

before=$(ask)
echo "two hosts: $before"
kill -9 $(ip netns pids pagedcore-b | head -1)    # the rank, not its supervisor, which is outside of the namespace
after=$(ask)
echo "after one was lost: $after"
[ "$before" = "$after" ] && echo "the same"
