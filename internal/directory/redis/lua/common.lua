-- Before each script. ARGV[1]: ms that are added to the time, not 0 but in tests. ARGV[2]: the
-- time, without them, after which nothing is to be done; 0 is never. See doc.go for the formats.
local spread = unpack
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local floor, sub = math.floor, string.sub

local time = call('TIME')
local real = time[1] * 1000 + floor(time[2] / 1000)
local now = real + tonumber(ARGV[1])
if tonumber(ARGV[2]) > 0 and real >= tonumber(ARGV[2]) then
  return redis.error_reply('LATE nobody waits for this call any more')
end
