-- A node that is gone has nothing more. KEYS: the lock of who buries it, its notices, what it has
-- used. ARGV[3]: who buries it. The answer is 0 if that is another.
if call('GET', KEYS[1]) ~= ARGV[3] then
  return 0
end
call('DEL', KEYS[2], KEYS[3])
return 1
