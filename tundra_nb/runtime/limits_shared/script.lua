-- The buckets of one budget, decided on the server in one step. The rule is that of `resilience/bucket.py`: the state
-- of a bucket is the moment at which it will be full again, amounts are seconds of refill, and giving back is exact.
--
-- KEYS: 1 when this data set began, 2 the number of the last take, 3 the daemons that were heard of, then one hash per
-- bucket. ARGV: the verb, the daemon, then what the verb needs. Time is the server's, in seconds since 2026, so that a
-- double resolves nanoseconds. Numbers are told as text with 17 digits: a Lua number in a reply is cut to an integer.
local EPSILON = 1e-6
local EPOCH = 1767225600
local KEPT_SECONDS = 60
local HEARD_SECONDS = 60
local MOST_MARKS = 64
local HOLD_GRACE = 0.5

local told = redis.call('TIME')
local now = tonumber(told[1]) - EPOCH + tonumber(told[2]) / 1e6
local verb, daemon = ARGV[1], ARGV[2]

local function text(number)
  return string.format('%.17g', number)
end

-- A bucket that is absent from a young data set counts as empty: a server that lost its state grants no burst.
local since = redis.call('GET', KEYS[1])
if not since then
  since = text(now)
  redis.call('SET', KEYS[1], since)
end
local born = tonumber(since)

local function load(place, per_unit, span)
  local key = KEYS[place + 3]
  local h = redis.call('HMGET', key, 'full', 'blocked', 'fresh', 'per_unit', 'takes', 'hold')
  local b = {key = key, per_unit = per_unit, span = span, marks = {}, lows = {}}
  b.full = tonumber(h[1] or '') or (born + span)
  b.blocked = tonumber(h[2] or '') or 0
  b.fresh = tonumber(h[3] or '') or 0
  if h[5] and #h[5] > 0 then
    local takes = cmsgpack.unpack(h[5])
    b.marks, b.lows = takes[1], takes[2]
  end
  if h[6] and #h[6] > 0 then
    local hold = cmsgpack.unpack(h[6])
    if hold[4] > now then
      b.hold = {ticket = hold[1], since = hold[2], cost = hold[3], till = hold[4]}
    end
  end
  local before = tonumber(h[4] or '')
  if before and before ~= per_unit then -- another rate: what was used stays used
    local stretch = per_unit / before
    b.full = now + math.max(0, b.full - now) * stretch
    for i = 1, #b.lows do b.lows[i] = b.lows[i] * stretch end
  end
  return b
end

local function save(b)
  local takes, hold = '', ''
  if #b.marks > 0 and b.full > now then takes = cmsgpack.pack({b.marks, b.lows}) end
  local kept = math.max(b.full, b.blocked, now)
  if b.hold then
    hold = cmsgpack.pack({b.hold.ticket, b.hold.since, b.hold.cost, b.hold.till})
    kept = math.max(kept, b.hold.till)
  end
  redis.call('HSET', b.key, 'full', text(b.full), 'blocked', text(b.blocked), 'fresh', text(b.fresh),
    'per_unit', text(b.per_unit), 'takes', takes, 'hold', hold)
  redis.call('PEXPIRE', b.key, string.format('%.0f', math.min(kept - now + KEPT_SECONDS, 1e10) * 1000))
end

local function thin(b) -- half the marks, each with the lower backlog of two: that gives back less, never more
  local marks, lows = {}, {}
  for i = 1, #b.marks, 2 do
    marks[#marks + 1] = b.marks[i + 1] or b.marks[i]
    lows[#lows + 1] = b.lows[i]
  end
  b.marks, b.lows = marks, lows
end

local function take(b, number, cost)
  local backlog = b.full - now
  if backlog <= 0 then
    b.full, b.fresh, b.marks, b.lows = now + cost, number, {}, {}
    return
  end
  b.full = b.full + cost
  while #b.lows > 0 and b.lows[#b.lows] >= backlog do
    b.marks[#b.marks], b.lows[#b.lows] = nil, nil
  end
  b.marks[#b.marks + 1], b.lows[#b.lows + 1] = number, backlog
  if #b.marks > MOST_MARKS then thin(b) end
end

local function give_back(b, number, amount)
  if b.full <= now or number < b.fresh then return end
  local first = 1
  while first <= #b.marks and b.marks[first] <= number do first = first + 1 end
  if first <= #b.marks then
    amount = math.min(amount, b.lows[first])
    local marks, lows = {}, {}
    for i = 1, first - 1 do
      if b.lows[i] < b.lows[first] - amount then
        marks[#marks + 1], lows[#lows + 1] = b.marks[i], b.lows[i]
      end
    end
    for i = first, #b.marks do
      marks[#marks + 1], lows[#lows + 1] = b.marks[i], b.lows[i] - amount
    end
    b.marks, b.lows = marks, lows
  end
  b.full = b.full - amount
end

local function backlogs(buckets, reply)
  for i = 1, #buckets do
    reply[#reply + 1] = text(math.max(0, buckets[i].full - now))
    reply[#reply + 1] = text(math.max(0, buckets[i].blocked - now))
  end
  return reply
end

local function every(from, width)
  local buckets = {}
  for i = 1, #KEYS - 3 do
    local at = from + (i - 1) * width
    local b = load(i, tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
    b.given = tonumber(ARGV[at + 2])
    buckets[i] = b
  end
  return buckets
end

if verb == 'reserve' then
  -- ticket, since when it asks ('' the first time), how long it may wait; a bucket: seconds per unit, span, cost
  redis.call('ZADD', KEYS[3], text(now), daemon)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now - HEARD_SECONDS))
  local heard = redis.call('ZCARD', KEYS[3])
  local ticket, asking, patience = ARGV[3], tonumber(ARGV[4]) or now, tonumber(ARGV[5])
  local buckets = every(6, 3)
  local at, last = now, 1
  for i = 1, #buckets do
    local b = buckets[i]
    if b.given > b.span * (1 + 1e-9) then
      return backlogs(buckets, {'never', i, text(-1), text(asking), since, heard})
    end
    local held = 0
    if b.hold and b.hold.ticket ~= ticket and b.hold.since < asking then held = b.hold.cost end
    local fits = math.max(now, b.blocked, b.full + b.given + held - b.span)
    if fits > at + EPSILON then at, last = fits, i end
  end
  if at <= now + EPSILON then
    local number = redis.call('INCR', KEYS[2])
    for i = 1, #buckets do
      local b = buckets[i]
      take(b, number, b.given)
      if b.hold and b.hold.ticket == ticket then b.hold = nil end
      save(b)
    end
    return backlogs(buckets, {'taken', number, text(0), text(asking), since, heard})
  end
  local b = buckets[last]
  if at - now <= patience and (not b.hold or b.hold.ticket == ticket or b.hold.since > asking) then
    -- the oldest who was refused keeps its cost free, else many small ones would starve it
    b.hold = {ticket = ticket, since = asking, cost = b.given, till = at + HOLD_GRACE}
    save(b)
  end
  return backlogs(buckets, {'refused', last, text(at - now), text(asking), since, heard})
end

if verb == 'settle' then
  -- number, data set; a bucket: seconds per unit, span, what was used beyond what was taken (negative: less)
  local number, of = tonumber(ARGV[3]), ARGV[4]
  local buckets = every(5, 3)
  for i = 1, #buckets do
    local b = buckets[i]
    if b.given > 0 then
      take(b, redis.call('INCR', KEYS[2]), b.given)
    elseif of == since then
      give_back(b, number, -b.given)
    end
    save(b)
  end
  return backlogs(buckets, {})
end

if verb == 'spent' then
  -- what was let through while this server was away, a bucket: seconds per unit, span, amount; it empties, at most
  local buckets = every(3, 3)
  local number = redis.call('INCR', KEYS[2])
  for i = 1, #buckets do
    local b = buckets[i]
    b.full = math.max(b.full, math.min(math.max(b.full, now) + b.given, now + b.span))
    b.fresh, b.marks, b.lows = number, {}, {}
    save(b)
  end
  return backlogs(buckets, {})
end

if verb == 'penalise' then
  -- a bucket: seconds per unit, span, for how many seconds the provider wants nothing (0: it is pardoned)
  local buckets = every(3, 3)
  for i = 1, #buckets do
    local b = buckets[i]
    b.blocked = b.given > 0 and math.max(b.blocked, now + b.given) or 0
    save(b)
  end
  return backlogs(buckets, {})
end

if verb == 'leave' then
  -- ticket; a bucket: seconds per unit, span, 0
  local buckets = every(4, 3)
  for i = 1, #buckets do
    local b = buckets[i]
    if b.hold and b.hold.ticket == ARGV[3] then
      b.hold = nil
      save(b)
    end
  end
  return {}
end

if verb == 'levels' then
  return backlogs(every(3, 3), {})
end

return redis.error_reply('tundra: no verb ' .. verb)
