-- A nonce is used. KEYS: used nonces by when they are forgotten, in ms. ARGV[3]: the nonce; 4: when
-- it is forgotten; 5: how many there may be. The answer is 1 if it was fresh, 0 if not, 2 if there
-- is no room.
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if call('ZSCORE', KEYS[1], ARGV[3]) then
  return 0
elseif call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then
  return 2
end
call('ZADD', KEYS[1], ARGV[4], ARGV[3])
call('PEXPIRE', KEYS[1], tonumber(call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]) - now + 60000)
return 1
