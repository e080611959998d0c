-- Feed a list of ark's that is in another slot than its task's queue, so that the task's own scripts cannot.
--
-- KEYS  1    ark's list                LIST    pieces of text, `__EOF__` last
-- ARGV  lifetime in ms, is_final 0/1, texts...
-- Reply: nothing.
-- Atomic because the pieces of one write belong together.

for position = 3, #ARGV do
  feed(KEYS[1], ARGV[position], ARGV[1])
end
if ARGV[2] == '1' then
  feed(KEYS[1], '__EOF__', 300000)
end
return nil
