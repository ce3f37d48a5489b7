-- Members are in a set no more. KEYS: the set. ARGV[3]: ZREM or SREM; 4 and on: the members.
return call(ARGV[3], KEYS[1], spread(ARGV, 4))
