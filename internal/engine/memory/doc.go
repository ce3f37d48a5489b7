// Package memory is the engine whose store is this process: the log, the records and the
// remembered ids of every channel in memory, gone when the process ends.
//
// A Store holds the channels; Node gives access to it, and several nodes on one Store see
// the same channels. Append does everything on its caller's goroutine: it takes the
// channel's lock, checks, stores, calls Deliver of every subscriber, releases the lock and
// calls done. So the order of Deliver is the order of the log, and Flush is never called.
//
// # Positions
//
// Every channel has a base: the position before its oldest entry. It is the seed serial
// that the channel was born with, or the serial of the entry trimmed last. Reading exactly
// after a position succeeds for the base and for the entries in the log, nothing else. A
// channel that nobody used for engine.LiveWindow, and that holds nothing, is forgotten;
// when it is used again its new seed is later than every serial it ever had, so that an
// old position is gone rather than wrong.
//
// # Memory
//
// Two budgets bound a Store. Options.LogBytes counts channels, log entries and records;
// when it is used up the oldest entries of unpersisted channels are dropped, whatever
// their channel, and Append fails with engine.ErrFull only when there are none left.
// A message that a channel keeps as its last is not dropped either, only replaced.
// Options.IDBytes counts the ids that make a repeated Append known; the oldest are
// forgotten first. Both count an estimate of what the garbage collector keeps, overheads
// included, and a little more may be in use while Appends run at once.
//
// A realtime id costs some 40 bytes with its result. A connection keeps the results of its
// newest 2048 publishes to a channel; of those before it, the ranges of msgSerials that
// were really seen on that channel, because a connection spreads its msgSerials over many
// channels and a gap was never published here.
//
// The package knows nothing of bodies beyond their size, and starts no goroutine: Run
// trims what nobody touches.
package memory
