-- What most calls are: entries of a channel that is known, with ids of connections or none,
-- no records, nothing to drop. It does the same as what follows, without defining the
-- functions that need not be defined; whatever is not plain is left to them, before anything
-- was written.
local fastHeader = ARGV[1]
if string.byte(fastHeader) == 1 then
  local call, pack, unpack, sub, floor = redis.call, struct.pack, struct.unpack, string.sub, math.floor
  local state = call('GET', KEYS[1])
  if state and sub(state, 69, 76) == EPOCH then
    local time = call('TIME')
    local now = time[1] * 1000 + floor(time[2] / 1000) + SKEW
    local _, retention, maxEntries, maxBytes, _, appends = unpack('>BI6I4I6I6I2', fastHeader)
    local version, ms, counter, tailMs, tailCounter, tailEpoch, entries, bytes, oldest = unpack('>BI6I3I6I3c8I4I6I6', state)
    local kept = retention > 240000 and retention or 240000
    local plain = version == 1 and (entries == 0 or oldest >= now - kept - 15000 and
      (oldest >= now - 240000 or retention == 0 or
      (maxEntries == 0 or entries <= maxEntries + 15) and (maxBytes == 0 or bytes <= maxBytes + 15 * 1024)))

    -- First look, then write.
    local at, total = 3, 0
    local serials, counts, lists, late, own = {}, {}, {}, {}, {}
    local newest, told = {}, {}
    for a = 1, appends do
      if not plain then
        break
      end
      local flags, deadline, list, serial, count = unpack('>BI6I2I6I2', ARGV[at])
      serials[a], counts[a], lists[a] = serial, count, list
      if deadline > 0 and now >= deadline then
        late[a] = true
        plain = flags % 2 == 0
      else
        if list > 0 then
          local last = newest[list]
          if not last then
            local element = call('LINDEX', KEYS[list], -1)
            if element then
              _, last, told[list] = unpack('>BI6I6', element)
            else
              last = -1
            end
            own[list] = flags >= 2
          end
          plain = serial > last
          newest[list] = serial
        end
        total = total + count
      end
      at = at + 1 + count
    end

    if plain and counter + total < 999999 then
      local before, was = ms, entries
      if total > 0 and now > ms then
        ms, counter = now, -1
      end
      local id = string.format('%.0f-', ms)
      local results, published, noted, elements = {}, {'\1'}, {}, {}
      at = 3
      for a = 1, appends do
        if late[a] then
          results[a] = pack('>BI6I3I2c8', 2, 0, 0, 0, EPOCH)
        else
          local first, m, count, list = counter + 1, ms, counts[a], lists[a]
          if count == 0 then
            first, m = 0, now > ms and now or ms
          end
          for i = at + 1, at + count do
            counter = counter + 1
            local draft = ARGV[i]
            local value = pack('>Bc8I6I3c8', 1, EPOCH, tailMs, tailCounter, tailEpoch) .. draft
            published[#published + 1] = pack('>I4I6I3', #value, ms, counter)
            published[#published + 1] = value
            if string.byte(draft) == 0 then
              call('XADD', KEYS[2], id .. counter, 'e', value)
              if entries == 0 then
                oldest = ms
              end
              entries = entries + 1
              bytes = bytes + #value + 40
              tailMs, tailCounter, tailEpoch = ms, counter, EPOCH
            end
          end
          local result = pack('>I6I3I2c8', m, first, count, EPOCH)
          results[a] = '\0' .. result
          if list > 0 then
            local to = elements[list]
            if not to then
              to = {}
              elements[list] = to
              noted[#noted + 1] = list
            end
            to[#to + 1] = pack('>BI6', 1, serials[a]) .. result
          end
        end
        at = at + 1 + counts[a]
      end
      local long = {}
      for i = 1, #noted do
        local list = noted[i]
        local n = call('RPUSH', KEYS[list], _G.unpack(elements[list]))
        if not told[list] or floor(told[list] / 240000) ~= floor(ms / 240000) then
          call('PEXPIRE', KEYS[list], 490000)
        end
        if n > (own[list] and 64 or 2048) + 64 and #long < 255 then
          long[#long + 1] = pack('>I2', list)
        end
      end
      if total > 0 then
        call('SET', KEYS[1], pack('>BI6I3I6I3c8I4I6I6', 1, ms, counter, tailMs, tailCounter, tailEpoch, entries, bytes, oldest) .. sub(state, 44),
          'PX', ARGV[2])
        if was == 0 or floor(before / 60000) ~= floor(ms / 60000) then
          call('PEXPIRE', KEYS[2], ARGV[2] - 120000)
        end
        call('SPUBLISH', KEYS[1], table.concat(published))
      end
      return pack('>I6B', now, #long) .. table.concat(long) .. table.concat(results)
    end
  end
end
