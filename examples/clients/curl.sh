# The vote of four samples, in one piece, and as a stream.
curl -sS "$BASE_URL/chat/completions" -H 'Content-Type: application/json' \
  -d '{"model": "vote/loopback", "messages": [{"role": "user", "content": "What is 17 + 25?"}]}'
echo
curl -sSN "$BASE_URL/chat/completions" -H 'Content-Type: application/json' \
  -d '{"model": "vote/loopback", "messages": [{"role": "user", "content": "What is 17 + 25?"}], "stream": true}'
# What cannot be honoured is refused by name.
curl -sS "$BASE_URL/chat/completions" -H 'Content-Type: application/json' \
  -d '{"model": "vot/loopback", "messages": [{"role": "user", "content": "What is 17 + 25?"}]}'
