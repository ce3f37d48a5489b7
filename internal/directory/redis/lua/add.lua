-- A set has some more members. KEYS: the set. ARGV[3] and on: the members.
call('SADD', KEYS[1], spread(ARGV, 3))
return call('PEXPIRE', KEYS[1], 87000000) -- as long as a record that nobody looks at, and a little
