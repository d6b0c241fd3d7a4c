#!/bin/sh
# Visits the example for ever, about ten times a second, so that the dashboard has something to show: lists, users, new
# users, and each kind of refusal. For the profile `load` of compose.yml; needs sh and curl.
#
#   TARGET   where the proxy serves, without a slash at the end
#   PAUSE    seconds between two visits
set -eu

target=${TARGET:?set TARGET, for example to http://proxy:8080}
pause=${PAUSE:-0.1}

# The status is what the example says, so that none is an error here; only a proxy that is away is told.
visit() {
  curl -sS -o /dev/null --max-time 10 -A sidelog-load "$@" || true
  sleep "$pause"
}

post() { visit -H 'content-type: application/json' --data "$1" "$target/api/v1/users"; }

number=0
while :; do
  number=$((number + 1))
  visit "$target/api/v1/users"
  visit "$target/api/v1/users/1"
  visit "$target/api/v1/users/$((number % 5 + 1))?detail=$number"
  visit "$target/health"
  visit "$target/api/v1/users/999999"
  # Users live in memory: a new one now and then, and the same one again is refused.
  if [ $((number % 10)) -eq 0 ]; then
    post "{\"name\":\"Visitor $number\",\"email\":\"visitor-$number@example.com\"}"
    post "{\"name\":\"Visitor $number\",\"email\":\"visitor-$number@example.com\"}"
    post '{"name":"","email":"nobody"}'
    post 'this is no JSON'
    visit "$target/nothing/here"
    visit "$target/api/v1/error"
  fi
done
