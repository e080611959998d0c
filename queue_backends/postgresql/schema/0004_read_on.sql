-- Positions are given out when a record is inserted and seen when its transaction commits, which is not the same order.
-- A reader that goes on where it was goes by transactions, and reads only those that no older open one can precede.
ALTER TABLE shoal.records ADD COLUMN transaction xid8 NOT NULL DEFAULT pg_current_xact_id();
DROP INDEX shoal.records_order;
CREATE INDEX records_order ON shoal.records (queue_id, log, transaction, position);
