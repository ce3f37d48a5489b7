-- Before this stand two lines: EPOCH, the epoch of this Redis process, and SKEW, which is 0
-- but in tests. See doc.go for the formats.
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local floor, match, sub = math.floor, string.match, string.sub

local LIVE = 240000 -- engine.LiveWindow in ms
local STATE = '>BI6I3I6I3c8I4I6I6I8I6I3c8'

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000) + SKEW

-- The state of the channel, as read by load.
local ms, counter                -- the last serial given
local tailMs, tailCounter, tailEpoch
local baseMs, baseCounter, baseEpoch
local entries, bytes, oldest     -- of the log; oldest in ms
local revision                   -- of the last record put
local epochs                     -- those of the log, newest first, 8 bytes each

-- load reads the state. It reports whether there was one; if not, it is that of a new
-- channel, which nothing has saved.
local function load()
  local s = call('GET', KEYS[1])
  if s then
    local version, at
    version, ms, counter, tailMs, tailCounter, tailEpoch, entries, bytes, oldest,
      revision, baseMs, baseCounter, baseEpoch, at = unpack(STATE, s)
    if version ~= 1 then
      error('channel state of unknown version ' .. version)
    end
    epochs = sub(s, at)
    return true
  end
  ms, counter = now, 0
  tailMs, tailCounter, tailEpoch = now, 0, EPOCH
  baseMs, baseCounter, baseEpoch = now, 0, EPOCH
  entries, bytes, oldest = 0, 0, 0
  revision = time[1] * 1000000 + time[2]
  epochs = EPOCH
  return false
end

-- dropLog drops a log whose state is gone. It writes nothing if there is none: a full Redis
-- refuses the first write of a script, if that needs memory, and no later one.
local function dropLog()
  if call('EXISTS', KEYS[2]) == 1 then
    call('UNLINK', KEYS[2])
  end
end

local function kept(retention) return retention > LIVE and retention or LIVE end

-- save writes the state, which outlives the log: see expireLog.
local function save(retention)
  call('SET', KEYS[1], pack(STATE, 1, ms, counter, tailMs, tailCounter, tailEpoch, entries, bytes, oldest,
    revision, baseMs, baseCounter, baseEpoch) .. epochs, 'PX', kept(retention) + 240000)
end

-- expireLog is called once a minute at most.
local function expireLog(retention)
  call('PEXPIRE', KEYS[2], kept(retention) + 120000)
end

-- emptied makes the log end where it begins.
local function emptied()
  baseMs, baseCounter, baseEpoch = tailMs, tailCounter, tailEpoch
  entries, bytes, oldest = 0, 0, 0
end

local function parseID(id)
  local m, n = match(id, '^(%d+)-(%d+)$')
  return tonumber(m), tonumber(n)
end

local function dropUpTo(entry)
  baseMs, baseCounter = parseID(entry[1])
  baseEpoch = sub(entry[2][2], 2, 9)
end

local function findOldest()
  local first = call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  if first then
    oldest = parseID(first[1])
  else
    emptied()
  end
end

local OVERHEAD = 40 -- bytes of an entry besides its value

-- trim drops what the policy does not keep, if that is more than the slack. It reports
-- whether the state changed, and whether there is more to drop.
local function trim(retention, maxEntries, maxBytes, slack)
  local live = now - LIVE
  if entries == 0 or oldest >= live then
    return false, false
  end
  local changed = false
  local age = now - kept(retention)
  if oldest < age - slack * 1000 then
    changed = true
    local last = call('XREVRANGE', KEYS[2], age - 1, '-', 'COUNT', 1)[1]
    if last then
      dropUpTo(last)
      local n = call('XTRIM', KEYS[2], 'MINID', '=', age)
      bytes = floor(bytes * (entries - n) / entries)
      entries = entries - n
    end
    findOldest()
  end
  if retention == 0 or oldest >= live or entries == 0 then
    return changed, false
  end
  local most = maxEntries > 0 and maxEntries or 4294967295
  local largest = maxBytes > 0 and maxBytes or 281474976710655
  if entries <= most + slack and bytes <= largest + slack * 1024 then
    return changed, false
  end
  -- Too many, or too large: the oldest go, one by one, since their sizes count.
  local list = call('XRANGE', KEYS[2], '-', live - 1, 'COUNT', 65)
  local dropped = 0
  while dropped < 64 and list[dropped + 1] and (entries > most or bytes > largest) do
    dropped = dropped + 1
    entries = entries - 1
    bytes = bytes - #list[dropped][2][2] - OVERHEAD
  end
  if dropped > 0 then
    changed = true
    dropUpTo(list[dropped])
    call('XTRIM', KEYS[2], 'MINID', '=', baseMs .. '-' .. (baseCounter + 1))
    findOldest()
  end
  return changed, dropped == 64
end
