-- Several Appends of one channel, in their order. KEYS: state, log, and those that ARGV
-- names by their index. ARGV: the header of the call, for how many ms the state lives, then
-- each Append. See doc.go.
local CLIENT_WINDOW = 150000
local RESULT = '>BI6I3I2c8'
local NOTE = '>BI6I6I3I2c8'   -- an element of a connection's list: 1, msgSerial, result
local RANGES = 18             -- bytes of a range in the element that begins with 2
local RECORD = '>BI8I6I6I3c8' -- before a record's value: 1, revision, expires, serial
local RECORD_SIZE = 32

local _, retention, maxEntries, maxBytes, keepLast, appends, clientKeys, recordKeys1, recordKeys2, recordKeys3, recordKeys4, expiryKey, lastKey =
  unpack('>BI6I4I6I6I2I2I2I2I2I2I2I2', ARGV[1])
local recordKeys = {recordKeys1, recordKeys2, recordKeys3, recordKeys4}
local at = 3

local existed = load()
if not existed then
  dropLog()
end
trim(retention, maxEntries, maxBytes, 15)
local lastUse = entries > 0 and ms or 0
if time[1] * 1000000 + time[2] > revision then
  revision = time[1] * 1000000 + time[2] -- so that none comes again after a failover lost some
end
local results, published = {pack('>I6B', now, 0)}, {}
local dirty = not existed
local lastMessage = nil -- the newest, if a message is logged here

local function result(status, m, c, count, epoch)
  results[#results + 1] = pack(RESULT, status, m, c, count, epoch)
end

-- findNote looks for a msgSerial in a connection's list, which is sorted. last is its
-- newest element. It returns the element, or 'range' if only the fact is known; and, if
-- neither, the element that it belongs before.
local function findNote(key, last, serial)
  local lo, hi = 0, call('LLEN', key) - 1
  local first = call('LINDEX', key, 0)
  if string.byte(first) == 2 then
    lo = 1
    for i = 2, #first, RANGES do
      local from, to = unpack('>I6I6', first, i)
      if serial >= from and serial <= to then
        return 'range'
      end
    end
  end
  local after = nil
  while lo <= hi do
    local mid = floor((lo + hi) / 2)
    local element = call('LINDEX', key, mid)
    local _, s = unpack('>BI6', element)
    if s == serial then
      return element
    elseif s < serial then
      lo = mid + 1
    else
      after, hi = element, mid - 1
    end
  end
  return nil, after
end

-- compact makes ranges of the oldest elements.
local function compact(key, n)
  local list = call('LPOP', key, n)
  local ranges, from = '', 1
  if string.byte(list[1]) == 2 then
    ranges, from = sub(list[1], 2), 2
  end
  local old = now - LIVE
  while #ranges > 0 and select(3, unpack('>I6I6I6', ranges)) < old do
    ranges = sub(ranges, RANGES + 1)
  end
  local first, last, noted
  if #ranges > 0 then
    first, last, noted = unpack('>I6I6I6', ranges, #ranges - RANGES + 1)
    ranges = sub(ranges, 1, -RANGES - 1)
  end
  local parts = {'\2', ranges}
  for i = from, #list do
    local _, s, m = unpack('>BI6I6', list[i])
    if first and s == last + 1 then
      last, noted = s, m
    else
      if first then
        parts[#parts + 1] = pack('>I6I6I6', first, last, noted)
      end
      first, last, noted = s, s, m
    end
  end
  parts[#parts + 1] = pack('>I6I6I6', first, last, noted)
  local all = table.concat(parts)
  if #all > 2048 * RANGES + 1 then
    all = '\2' .. sub(all, -2048 * RANGES)
  end
  call('LPUSH', key, all)
end

-- note remembers a result for a connection's msgSerial.
local function note(key, keep, last, before, serial, m, c, count, epoch)
  local element = pack(NOTE, 1, serial, m, c, count, epoch)
  local n
  if before then
    n = call('LINSERT', key, 'BEFORE', before, element)
  else
    n = call('RPUSH', key, element)
  end
  -- The list lives for LIVE after its newest element, whenever that came since it was told.
  if not last or floor(select(3, unpack('>BI6I6', last)) / LIVE) ~= floor(m / LIVE) then
    call('PEXPIRE', key, 2 * LIVE + 10000)
  end
  if n > keep + 64 then
    compact(key, 65)
  end
end

-- current returns a record's revision, 0 if there is none.
local function current(key, field)
  local v = call('HGET', key, field)
  if not v then
    return 0
  end
  local _, rev, expires = unpack('>BI8I6', v)
  if expires ~= 0 and expires <= now then
    return 0
  end
  return rev
end

local function delete(space, name)
  local key = KEYS[recordKeys[space]]
  local size = call('HSTRLEN', key, 'k' .. name)
  if size > 0 then
    call('HDEL', key, 'k' .. name)
    if call('HINCRBY', key, 't', RECORD_SIZE - size - #name) <= 0 and call('HLEN', key) == 1 then
      call('UNLINK', key)
    end
    call('ZREM', KEYS[recordKeys[space] + 1], name)
  end
end

-- expire drops some records whose time is over.
local function expire()
  local old = call('ZRANGEBYSCORE', KEYS[expiryKey], '-inf', now, 'LIMIT', 0, 16)
  for i = 1, #old do
    local space, name = string.byte(old[i]), sub(old[i], 2)
    local k = recordKeys[space]
    if k > 0 then
      local v = call('HGET', KEYS[k], 'k' .. name)
      if v then
        local _, _, expires = unpack('>BI8I6', v)
        if expires ~= 0 and expires <= now then
          delete(space, name)
        end
      end
      call('ZREM', KEYS[expiryKey], old[i])
    end
  end
end

-- exceeds returns the status for a bound that forbids the puts, or nil.
local function exceeds(bound, puts, n)
  local space, maxRecords, most = unpack('>BI4I6', bound)
  local key = KEYS[recordKeys[space]]
  local records = call('HLEN', key)
  local size = 0
  if records > 0 then
    records = records - 1
    size = tonumber(call('HGET', key, 't'))
  end
  local recordsAfter, sizeAfter, seen = records, size, {}
  for i = puts, puts + 2 * (n - 1), 2 do
    local s, flags = unpack('>BB', ARGV[i])
    if s == space then
      local name = sub(ARGV[i], 11)
      local before = seen[name]
      if not before then
        local l = call('HSTRLEN', key, 'k' .. name)
        before = l > 0 and l - RECORD_SIZE + #name or -1
      end
      if before >= 0 then
        recordsAfter = recordsAfter - 1
        sizeAfter = sizeAfter - before
      end
      seen[name] = -1
      if flags == 0 then
        seen[name] = #name + #ARGV[i + 1]
        recordsAfter = recordsAfter + 1
        sizeAfter = sizeAfter + seen[name]
      end
    end
  end
  if maxRecords > 0 and recordsAfter > maxRecords and recordsAfter > records then
    return 4
  end
  if most > 0 and sizeAfter > most and sizeAfter > size then
    return 5
  end
end

local function put(header, value, m, first)
  local space, flags, entry, expires = unpack('>BBI2I6', header)
  local name = sub(header, 11)
  local key = KEYS[recordKeys[space]]
  if flags == 1 then
    delete(space, name)
    return
  end
  revision = revision + 1
  local rm, rc, re = 0, 0, EPOCH
  if entry > 0 then
    rm, rc = m, first + entry - 1
  end
  if expires > 0 then
    expires = now + expires
    call('ZADD', KEYS[expiryKey], expires, string.char(space) .. name)
  end
  local old = call('HSTRLEN', key, 'k' .. name)
  call('HSET', key, 'k' .. name, pack(RECORD, 1, revision, expires, rm, rc, re) .. value)
  if old == 0 then
    call('HINCRBY', key, 't', #name + #value)
    call('ZADD', KEYS[recordKeys[space] + 1], 0, name)
  elseif old ~= RECORD_SIZE + #value then
    call('HINCRBY', key, 't', RECORD_SIZE + #value - old)
  end
end

-- apply does what nothing forbids.
local function apply(first, count, puts, n)
  if count == 0 then
    local m = now > ms and now or ms
    for i = puts, puts + 2 * (n - 1), 2 do
      put(ARGV[i], ARGV[i + 1], m, 0)
    end
    dirty = dirty or n > 0
    return m, 0
  end
  local begins = sub(epochs, 1, 8) ~= EPOCH
  if begins then
    epochs = EPOCH .. sub(epochs, 1, 56)
  end
  if now > ms then
    ms, counter = now, -1
  elseif begins or counter + count > 999999 then
    ms, counter = ms + 1, -1
  end
  local c = counter + 1
  for i = first, first + count - 1 do
    counter = counter + 1
    local draft = ARGV[i] -- flags, kind, body
    local value = pack('>Bc8I6I3c8', 1, EPOCH, tailMs, tailCounter, tailEpoch) .. draft
    published[#published + 1] = pack('>I4I6I3', #value, ms, counter)
    published[#published + 1] = value
    if string.byte(draft) == 0 then
      call('XADD', KEYS[2], ms .. '-' .. counter, 'e', value)
      if entries == 0 then
        oldest = ms
      end
      entries = entries + 1
      bytes = bytes + #value + OVERHEAD
      if lastKey > 0 and string.byte(draft, 2) == 1 then
        lastMessage = pack('>I6I3', ms, counter) .. value
      end
      tailMs, tailCounter, tailEpoch = ms, counter, EPOCH
    end
  end
  for i = puts, puts + 2 * (n - 1), 2 do
    put(ARGV[i], ARGV[i + 1], ms, c)
  end
  dirty = true
  return ms, c
end

local function one()
  local flags, deadline, connKey, serial, count, preconditions, puts, bounds = unpack('>BI6I2I6I2I2I2I2', ARGV[at])
  at = at + 1
  local client = nil
  if flags >= 4 then
    client = ARGV[at]
    at = at + 1
    flags = flags - 4
  end
  local own = flags >= 2 -- the engine's own id, for one that has none
  local again = flags % 2 == 1
  local first = at
  local pre = first + count
  local put1 = pre + 2 * preconditions
  local bound1 = put1 + 2 * puts
  at = bound1 + bounds

  local late = deadline > 0 and now >= deadline
  if late and not again then
    return result(2, 0, 0, 0, EPOCH)
  end
  local last, before
  local key = KEYS[connKey]
  if connKey > 0 then
    last = call('LINDEX', key, -1)
    if last then
      local _, newest, m, c, n, epoch = unpack(NOTE, last)
      if serial == newest then
        return result(1, m, c, n, epoch)
      elseif serial < newest then
        local found
        found, before = findNote(key, last, serial)
        if found == 'range' then
          return result(1, now, 0, 0, EPOCH)
        elseif found then
          _, _, m, c, n, epoch = unpack(NOTE, found)
          return result(1, m, c, n, epoch)
        end
      end
    end
  end
  local bucket
  if client then
    bucket = floor(now / CLIENT_WINDOW)
    for i = 0, 1 do
      local v = call('HGET', KEYS[clientKeys + (bucket + i) % 2], client)
      if v then
        local m, c, n, epoch, noted = unpack('>I6I3I2c8I6', v)
        if noted > now - CLIENT_WINDOW then
          if connKey > 0 then
            -- The connection may send it again when the client's id is forgotten.
            note(key, 2048, last, before, serial, m, c, n, epoch)
          end
          return result(1, m, c, n, epoch)
        end
      end
    end
  end
  if late then
    return result(2, 0, 0, 0, EPOCH)
  end
  for i = pre, put1 - 2, 2 do
    local k = recordKeys[string.byte(ARGV[i])]
    if current(KEYS[k], 'k' .. sub(ARGV[i], 2)) ~= tonumber(ARGV[i + 1]) then
      return result(3, 0, 0, 0, EPOCH)
    end
  end
  if expiryKey > 0 then
    expire()
  end
  for i = bound1, bound1 + bounds - 1 do
    local status = exceeds(ARGV[i], put1, puts)
    if status then
      return result(status, 0, 0, 0, EPOCH)
    end
  end

  local m, c = apply(first, count, put1, puts)
  if connKey > 0 then
    note(key, own and 64 or 2048, last, before, serial, m, c, count, EPOCH)
  end
  if client then
    local k = KEYS[clientKeys + bucket % 2]
    call('HSET', k, client, pack('>I6I3I2c8I6', m, c, count, EPOCH, now))
    call('PEXPIRE', k, (bucket + 2) * CLIENT_WINDOW - now)
  end
  return result(0, m, c, count, EPOCH)
end

for _ = 1, appends do
  one()
end
if dirty then
  save(retention)
  if floor(lastUse / 60000) ~= floor(ms / 60000) then
    expireLog(retention)
  end
end
if lastMessage then
  call('SET', KEYS[lastKey], lastMessage, 'PX', keepLast)
end
if #published > 0 then
  call('SPUBLISH', KEYS[1], '\1' .. table.concat(published))
end
return table.concat(results)
