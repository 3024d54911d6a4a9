"""What Redis does for limits, each in one step that nothing comes between.

Keys: ``holders`` (sorted set: gateway process → second until which it is alive), counters of windows (integers
that expire with their window), counters of requests at once (hash: process → number), and short-lived records of
reservations. All have one hash tag, so that a cluster keeps them together. Lua's numbers are exact to 2^53.
"""

from typing import Final

RESERVE: Final = """
-- KEYS: holders, record, counter...   ARGV: holder, record_s, then per counter: mode, limit, amount, ttl_s
-- Returns {state, used...}: 'ok', 'full', 'stale' (the holder is not alive), 'void' (taken back before it came).
local record = redis.call('GET', KEYS[2])
if record == '0' then return {'void'} end
local now = tonumber(redis.call('TIME')[1])
local function alive(holder)
  local till = redis.call('ZSCORE', KEYS[1], holder)
  return till and tonumber(till) > now
end
if not alive(ARGV[1]) then return {'stale'} end
local state, used = 'ok', {}
for i = 3, #KEYS do
  local at = 3 + (i - 3) * 4
  local amount, total = tonumber(ARGV[at + 2]), 0
  if ARGV[at] == 'slots' then
    local held = redis.call('HGETALL', KEYS[i])
    for j = 1, #held, 2 do
      if alive(held[j]) then total = total + tonumber(held[j + 1]) else redis.call('HDEL', KEYS[i], held[j]) end
    end
  else
    total = tonumber(redis.call('GET', KEYS[i]) or '0')
  end
  if amount > 0 and total + amount > tonumber(ARGV[at + 1]) and not record then state = 'full' end
  used[i] = total
end
local answer = {state}
for i = 3, #KEYS do
  local at = 3 + (i - 3) * 4
  if state == 'ok' and not record then
    if ARGV[at] == 'slots' then
      redis.call('HINCRBY', KEYS[i], ARGV[1], ARGV[at + 2])
    else
      redis.call('INCRBY', KEYS[i], ARGV[at + 2])
    end
    if ARGV[at] == 'slots' or redis.call('TTL', KEYS[i]) < 0 then redis.call('EXPIRE', KEYS[i], ARGV[at + 3]) end
    used[i] = used[i] + tonumber(ARGV[at + 2])
  end
  answer[i - 1] = string.format('%.0f', used[i])
end
if state == 'ok' and not record then redis.call('SET', KEYS[2], '1', 'EX', ARGV[2]) end
return answer
"""

TAKE_BACK: Final = """
-- A reservation whose answer never came. KEYS: record, counter...   ARGV: holder, record_s, then: mode, amount
local record = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], '0', 'EX', ARGV[2])
if record ~= '1' then return 0 end
for i = 2, #KEYS do
  local at = 3 + (i - 2) * 2
  if redis.call('EXISTS', KEYS[i]) == 1 then
    if ARGV[at] == 'slots' then
      if redis.call('HINCRBY', KEYS[i], ARGV[1], -tonumber(ARGV[at + 1])) <= 0 then
        redis.call('HDEL', KEYS[i], ARGV[1])
      end
    else
      redis.call('INCRBY', KEYS[i], '-' .. ARGV[at + 1])
    end
  end
end
return 1
"""

SETTLE: Final = """
-- What reservations changed by ending. KEYS: sequence, counter...   ARGV: number, seconds, then: holder, change
-- A number that was seen is done already. A counter that is gone (its window is over) stays gone.
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return 0 end
for i = 2, #KEYS do
  local at = 3 + (i - 2) * 2
  if ARGV[at] == '' then
    if redis.call('EXISTS', KEYS[i]) == 1 and redis.call('INCRBY', KEYS[i], ARGV[at + 1]) < 0 then
      redis.call('SET', KEYS[i], '0', 'KEEPTTL')
    end
  elseif redis.call('HEXISTS', KEYS[i], ARGV[at]) == 1 then
    if redis.call('HINCRBY', KEYS[i], ARGV[at], ARGV[at + 1]) <= 0 then redis.call('HDEL', KEYS[i], ARGV[at]) end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""

RENEW: Final = """
-- KEYS: holders   ARGV: holder, the name it gets if it is not alive, seconds.   Returns the name it has now.
local now = tonumber(redis.call('TIME')[1])
local till = redis.call('ZSCORE', KEYS[1], ARGV[1])
local name = (till and tonumber(till) > now) and ARGV[1] or ARGV[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), name)
return name
"""
