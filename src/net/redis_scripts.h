/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REDIS_SCRIPTS_H
#define CBI_REDIS_SCRIPTS_H

/*
 * What the server does at once, in Lua. Keys, with a life being GENERATION:NAME, an executor from
 * one entry to its end:
 *
 * - cb:exec:NAME, a hash that expires (the lease): generation, address, host, rack, memory_max;
 *   memory, disk, blocks: sums of what it reported; telling: while not all is told.
 * - cb:execs, a set: names.
 * - cb:lives, a set: lives that have left something to be cleaned.
 * - cb:have:LIFE, a hash: block -> "LEVEL MEMORY DISK GENERATION SUM".
 * - cb:where:BLOCK, a set: lives.
 *
 * Each change is one of the life that the lease names, so that a late one of an older life changes
 * nothing. Numbers of 64 bits are texts: Lua's have 53. What a life that is over has left is not
 * seen by anybody, and cleaned a few hundred blocks at a time by whoever lives.
 */

/* 1: it is this life's lease; 0: nobody has it; -1: another life has. */
#define CBI_REDIS_IS_MINE                                                                          \
    "local key = 'cb:exec:' .. ARGV[1]\n"                                                          \
    "local now = redis.call('HGET', key, 'generation')\n"                                          \
    "if not now then return 0 end\n"                                                               \
    "if now ~= ARGV[2] then return -1 end\n"

/* Who watches is told each change, on a channel, as "LEVEL MEMORY DISK GENERATION SUM" of the block
 * (zeroes: it is gone), generation of the life, bytes of its name, name and block. As long as
 * nobody does this costs one question, and for a user who may not, that or one attempt. The
 * databases of a server have their channels in common, so those but 0 say which they are:
 * "cb:changes:1". */
#define CBI_REDIS_CHANGES "cb:changes"
#define CBI_REDIS_TELLS(channel)                                                                   \
    "local channel = ARGV[" channel "]\n"                                                          \
    "local n = redis.pcall('PUBSUB', 'NUMSUB', channel)\n"                                         \
    "local heard = not n.err and n[2] > 0\n"                                                       \
    "local function tell(generation, name, what, block)\n"                                         \
    "  if heard then\n"                                                                            \
    "    local to = redis.pcall('PUBLISH', channel, what .. ' ' .. generation .. ' ' ..\n"         \
    "                           #name .. ' ' .. name .. block)\n"                                  \
    "    heard = type(to) == 'number'\n"                                                           \
    "  end\n"                                                                                      \
    "end\n"

/* name, generation, lease in ms, address, host, rack, memory_max, 1: only if nobody has the name.
 * An older life is over with it; a newer one, of another process by that name, stays: -1.
 * A server that is full (maxmemory) refuses nothing to a script that has written: an executor may
 * always enter, for that is not much, and what is dead is cleaned then. */
#define CBI_REDIS_ENTER                                                                            \
    "local key = 'cb:exec:' .. ARGV[1]\n"                                                          \
    "local old = redis.call('HGET', key, 'generation')\n"                                          \
    "if old and (#old > #ARGV[2] or (#old == #ARGV[2] and old > ARGV[2])) then return -1 end\n"    \
    "if old and ARGV[8] == '1' then return -1 end\n"                                               \
    "redis.call('HDEL', key, 'telling')\n"                                                         \
    "redis.call('HSET', key, 'generation', ARGV[2], 'address', ARGV[4], 'host', ARGV[5],\n"        \
    "           'rack', ARGV[6], 'memory_max', ARGV[7], 'memory', 0, 'disk', 0, 'blocks', 0,\n"    \
    "           'telling', 1)\n"                                                                   \
    "redis.call('PEXPIRE', key, ARGV[3])\n"                                                        \
    "redis.call('SADD', 'cb:execs', ARGV[1])\n"                                                    \
    "redis.call('SADD', 'cb:lives', ARGV[2] .. ':' .. ARGV[1])\n"                                  \
    "return 1\n"

/* name, generation, lease in ms */
#define CBI_REDIS_RENEW                                                                            \
    CBI_REDIS_IS_MINE                                                                              \
    "redis.call('PEXPIRE', key, ARGV[3])\n"                                                        \
    "return 1\n"

/* name, generation: it has what the server had no room for. Not refused, as for ENTER. */
#define CBI_REDIS_TELLING                                                                          \
    CBI_REDIS_IS_MINE                                                                              \
    "redis.call('HDEL', key, 'telling')\n"                                                         \
    "redis.call('HSET', key, 'telling', 1)\n"                                                      \
    "return 1\n"

/* name, generation: all that it had when it entered, and since, is told */
#define CBI_REDIS_TOLD                                                                             \
    CBI_REDIS_IS_MINE                                                                              \
    "redis.call('HDEL', key, 'telling')\n"                                                         \
    "return 1\n"

/* name, generation */
#define CBI_REDIS_LEAVE                                                                            \
    CBI_REDIS_IS_MINE                                                                              \
    "redis.call('DEL', key)\n"                                                                     \
    "redis.call('SREM', 'cb:execs', ARGV[1])\n"                                                    \
    "return 1\n"

/* name, generation, channel, then block, level, memory, disk, generation, sum of each; level "":
 * gone */
#define CBI_REDIS_REPORT                                                                           \
    CBI_REDIS_IS_MINE CBI_REDIS_TELLS(                                                             \
        "3") "local life = ARGV[2] .. ':' .. ARGV[1]\n"                                            \
             "local have = 'cb:have:' .. life\n"                                                   \
             "local memory, disk, blocks = 0, 0, 0\n"                                              \
             "for i = 4, #ARGV, 6 do\n"                                                            \
             "  local block, level = ARGV[i], ARGV[i + 1]\n"                                       \
             "  local was = redis.call('HGET', have, block)\n"                                     \
             "  if was then\n"                                                                     \
             "    local m, d = string.match(was, '^%d+ (%d+) (%d+)')\n"                            \
             "    memory, disk, blocks = memory - m, disk - d, blocks - 1\n"                       \
             "  end\n"                                                                             \
             "  if level == '' then\n"                                                             \
             "    redis.call('HDEL', have, block)\n"                                               \
             "    redis.call('SREM', 'cb:where:' .. block, life)\n"                                \
             "    if was then tell(ARGV[2], ARGV[1], '0 0 0 0 0', block) end\n"                    \
             "  else\n"                                                                            \
             "    redis.call('HSET', have, block, table.concat(ARGV, ' ', i + 1, i + 5))\n"        \
             "    redis.call('SADD', 'cb:where:' .. block, life)\n"                                \
             "    memory, disk, blocks = memory + ARGV[i + 2], disk + ARGV[i + 3], blocks + 1\n"   \
             "    tell(ARGV[2], ARGV[1], table.concat(ARGV, ' ', i + 1, i + 5), block)\n"          \
             "  end\n"                                                                             \
             "end\n"                                                                               \
             "redis.call('HINCRBY', key, 'memory', string.format('%.0f', memory))\n"               \
             "redis.call('HINCRBY', key, 'disk', string.format('%.0f', disk))\n"                   \
             "redis.call('HINCRBY', key, 'blocks', string.format('%.0f', blocks))\n"               \
             "return 1\n"

/* how many blocks at a time, channel; answers what it cleaned */
#define CBI_REDIS_CLEAN                                                                            \
    CBI_REDIS_TELLS("2")                                                                           \
    "local done = 0\n"                                                                             \
    "for _, life in ipairs(redis.call('SMEMBERS', 'cb:lives')) do\n"                               \
    "  local generation, name = string.match(life, '^(%d+):(.*)$')\n"                              \
    "  if not generation then\n"                                                                   \
    "    redis.call('SREM', 'cb:lives', life)\n"                                                   \
    "  elseif redis.call('HGET', 'cb:exec:' .. name, 'generation') ~= generation then\n"           \
    "    local have, cursor, some = 'cb:have:' .. life, '0', {}\n"                                 \
    "    repeat\n" /* many buckets may be empty already: a scan looks at a few thousand */         \
    "      local part = redis.call('HSCAN', have, cursor, 'COUNT', ARGV[1])\n"                     \
    "      cursor, some = part[1], part[2]\n"                                                      \
    "    until #some > 0 or cursor == '0'\n"                                                       \
    "    for i = 1, #some, 2 do\n"                                                                 \
    "      redis.call('SREM', 'cb:where:' .. some[i], life)\n"                                     \
    "      redis.call('HDEL', have, some[i])\n"                                                    \
    "      tell(generation, name, '0 0 0 0 0', some[i])\n"                                         \
    "      done = done + 1\n"                                                                      \
    "    end\n"                                                                                    \
    "    if redis.call('EXISTS', have) == 0 then\n"                                                \
    "      redis.call('SREM', 'cb:lives', life)\n"                                                 \
    "      if redis.call('EXISTS', 'cb:exec:' .. name) == 0 then\n"                                \
    "        redis.call('SREM', 'cb:execs', name)\n"                                               \
    "      end\n"                                                                                  \
    "    end\n"                                                                                    \
    "    if done > 0 then break end\n"                                                             \
    "  end\n"                                                                                      \
    "end\n"                                                                                        \
    "return done\n"

/* block, how many at most, who asks ("": nobody who has entered); answers how many there are, then
 * name, generation, what of each, those in memory first; -1: none, and who asks is forgotten, or
 * somebody else who is there is still telling what he has */
#define CBI_REDIS_LOCATE                                                                           \
    "local places, found, out = redis.call('SMEMBERS', 'cb:where:' .. ARGV[1]), 0, {0}\n"          \
    "for pass = 0, 1 do\n"                                                                         \
    "  for _, life in ipairs(places) do\n"                                                         \
    "    local generation, name = string.match(life, '^(%d+):(.*)$')\n"                            \
    "    local now = redis.call('HGET', 'cb:exec:' .. (name or ''), 'generation')\n"               \
    "    local what = redis.call('HGET', 'cb:have:' .. life, ARGV[1])\n"                           \
    "    local level = what and tonumber(string.match(what, '^%d+') or 0)\n"                       \
    "    if generation and now == generation and what and (level % 8 < 4) == (pass == 1) then\n"   \
    "      found = found + 1\n"                                                                    \
    "      if found <= tonumber(ARGV[2]) then\n"                                                   \
    "        for _, v in ipairs({name, generation, what}) do out[#out + 1] = v end\n"              \
    "      end\n"                                                                                  \
    "    end\n"                                                                                    \
    "  end\n"                                                                                      \
    "end\n"                                                                                        \
    "out[1] = found\n"                                                                             \
    "if found == 0 then\n"                                                                         \
    "  local busy = ARGV[3] ~= '' and redis.call('EXISTS', 'cb:exec:' .. ARGV[3]) == 0\n"          \
    "  for _, name in ipairs(busy and {} or redis.call('SMEMBERS', 'cb:execs')) do\n"              \
    "    busy = busy or\n"                                                                         \
    "           (name ~= ARGV[3] and redis.call('HGET', 'cb:exec:' .. name, 'telling') == '1')\n"  \
    "  end\n"                                                                                      \
    "  if busy then out[1] = -1 end\n"                                                             \
    "end\n"                                                                                        \
    "return out\n"

/* how many at most; answers, of each, name, lease left in ms, generation, address, host, rack,
 * memory_max, memory, disk, blocks */
#define CBI_REDIS_PEERS                                                                            \
    "local out = {}\n"                                                                             \
    "for _, name in ipairs(redis.call('SMEMBERS', 'cb:execs')) do\n"                               \
    "  local key = 'cb:exec:' .. name\n"                                                           \
    "  local e = redis.call('HMGET', key, 'generation', 'address', 'host', 'rack',\n"              \
    "                       'memory_max', 'memory', 'disk', 'blocks')\n"                           \
    "  if e[1] and #out < 10 * tonumber(ARGV[1]) then\n"                                           \
    "    out[#out + 1] = name\n"                                                                   \
    "    out[#out + 1] = tostring(redis.call('PTTL', key))\n"                                      \
    "    for i = 1, 8 do out[#out + 1] = e[i] or '' end\n"                                         \
    "  end\n"                                                                                      \
    "end\n"                                                                                        \
    "return out\n"

/* name, generation, block, ms. 0: it is this life's; else for how many ms it is another's; -1: this
 * life is over */
#define CBI_REDIS_CLAIM                                                                            \
    "if redis.call('HGET', 'cb:exec:' .. ARGV[1], 'generation') ~= ARGV[2] then return -1 end\n"   \
    "local key, me = 'cb:claim:' .. ARGV[3], ARGV[2] .. ':' .. ARGV[1]\n"                          \
    "local owner = redis.call('GET', key)\n"                                                       \
    "local generation, name = string.match(owner or '', '^(%d+):(.*)$')\n"                         \
    "if owner and owner ~= me and\n"                                                               \
    "   redis.call('HGET', 'cb:exec:' .. (name or ''), 'generation') == generation then\n"         \
    "  return math.max(1, redis.call('PTTL', key))\n"                                              \
    "end\n"                                                                                        \
    "redis.call('SET', key, me, 'PX', ARGV[4])\n"                                                  \
    "return 0\n"

/* name, generation, block */
#define CBI_REDIS_UNCLAIM                                                                          \
    "local key = 'cb:claim:' .. ARGV[3]\n"                                                         \
    "if redis.call('GET', key) ~= ARGV[2] .. ':' .. ARGV[1] then return 0 end\n"                   \
    "return redis.call('DEL', key)\n"

enum { CBI_REDIS_LOCATED = 3, CBI_REDIS_PEER = 10, CBI_REDIS_REPORTED = 6 };

#endif
