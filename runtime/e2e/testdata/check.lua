-- SPDX-License-Identifier: Apache-2.0
-- For wrk: counts the answers whose body is not that of /var/task/body.txt.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init()
   local file = assert(io.open("/var/task/body.txt", "rb"))
   want = file:read("*a")
   file:close()
   good, bad = 0, 0
end

function response(status, _, body)
   if status == 200 and body == want then
      good = good + 1
   else
      bad = bad + 1
   end
end

function done(summary)
   local good, bad = 0, 0
   for _, thread in ipairs(threads) do
      good = good + thread:get("good")
      bad = bad + thread:get("bad")
   end
   local e = summary.errors
   print(string.format("good=%d bad=%d errors=%d", good, bad, e.connect + e.read + e.write + e.status + e.timeout))
end
