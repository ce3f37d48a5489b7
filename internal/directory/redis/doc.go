// Package redis is the directory whose store is Redis 7 or later: one server, a Redis Cluster,
// or a primary behind Sentinel. Any number of nodes share it.
//
// Every operation is one small Lua script, or a few one after another, each on one shard. A call
// that has no answer is made again until the operation's time is over (Options.Timeout); scripts
// are such that this does no harm. Each carries the time after which nobody waits for it, in
// the time of Redis, so that what lies in a stopped server's socket is not done when it goes on.
//
// # Connections
//
// A record is on a shard of its own. The index has, for each app and node, the connections that
// the node answers for, and how many of the app are Connected. It is written before a record
// that names the node, and cleared after the record is another's: whatever ends in between,
// no connection is without a node that answers for it. What could not be done is repeated by
// Run; where nobody knows whether a record became this node's, Run makes an orphan of it. Run
// also looks at some entries of the index every 10 s: records that live have their lifetime
// renewed, and entries without a record are dropped.
//
// # Nodes that are gone
//
// A node gives a sign of life four times in the time of a lease. Who finds one without for a
// lease, and has itself given all of its own for as long, so that it was not Redis that was
// away, declares it gone in one step. One node at a time then buries it: what it counts is
// counted no more, its Connected connections become Disconnected for Options.StateTTL, and all
// that it answered for become orphans. A node that was declared gone and lives finds out with
// its next sign of life, waits until it is buried, and tells its counts again; the caller
// reclaims its connections (Returned). The same happens when Redis has lost everything.
//
// # Counts
//
// A node tells what it counts on a channel as a whole, with the changes that are asked for. One
// call for a channel is under way at a time, and what comes meanwhile goes with the next. So a
// call without an answer is repaired by the next, and all is told again every 5 minutes.
//
// # Notices
//
// Each node has a short log of notices, which it reads with one blocking command: nothing is
// polled, and what was told while the connection was down is read when it is back. A channel
// whose occupancy changes is told of to those who have looked at it since they were told last.
//
// # Keys
//
// All begin with the prefix, "letshare:" unless configured; what is in braces decides the shard
// of a cluster. Integers have the highest byte first; a text is 4 bytes of length and the
// bytes. A node is <name>/<incarnation>. A bucket is <n>:<app>, with n the FNV-1a (32 bits) of a
// channel's name modulo 32. Times are in ms, those of Redis. Values of a version other than 1
// are refused with an error.
//
//	c{c:<id>}           string  a connection: version 1; 1 state; 6 generation; 6 committed; 6
//	                            deadline or 0; 4 grace; app, digest, name and incarnation of
//	                            the owner as texts. Lives until a second after the deadline,
//	                            or a day after its node looked at it
//	c{c:<id>}:w         set     channels where it may have members: app as text, name. Lives
//	                            10 minutes longer, or than the grace time
//	i{a:<app>}          string  how many are Connected, in decimal. This, the next and x live two
//	                            days after their nodes looked at them
//	i{a:<app>}:<node>   zset    connections that the node answers for, until when: the deadline
//	                            and the grace time and a minute; inf if Connected
//	{orphans}           zset    ids, by when they are given to somebody. Lives two days after
//	                            the last
//	{nodes}             zset    nodes, by their last sign of life
//	{nodes}:gone        zset    those that are to be buried, by when that was found
//	l{n:<node>}         string  who buries it; lives 10 s after its last step
//	x{n:<node>}         set     where it has left something: "a"<app>, "b"<bucket>
//	n{n:<node>}         stream  notices, some 4,096 at most, field "n": version 1, kind; 1: 6
//	                            generation, connection (superseded); 2: revocations; 3: apps;
//	                            4: app as text, channel (its occupancy). Lives 10 minutes
//	                            after the last
//	q{b:<bucket>}:<channel>  hash  what each node counts there, and "t" the sum: 8 integers of
//	                            4 bytes, in the order of pubsub.Metric
//	w{b:<bucket>}:<channel>  set   nodes to be told of the next change; lives 10 minutes
//	y{b:<bucket>}:<node>     set   channels where the node counts something
//	g{b:<bucket>}       zset    channels where somebody counts something, all with score 0. This,
//	                            q and y live 15 minutes after they were written
//	h{b:<bucket>}       zset    touched channels, all with score 0
//	t{b:<bucket>}       zset    the same, by until when. Both live a minute longer than the last
//	u{u:<0-63>}         zset    used nonces, by when they are forgotten: the first 16 bytes of
//	                            the SHA-256 of key, 0, nonce; the bucket is the 17th modulo 64
//	{revocations}       hash    number to version 1, 6 issued before, 6 applies at, 6 expires,
//	                            app and key as texts, target. Numbers grow; they are µs, or one
//	                            more than the last
//	{revocations}:n     zset    the numbers; :x the numbers, by when they expire; :t hash of key
//	                            as text and target to the newest number; :a hash of app to how
//	                            many. All live a minute longer than the last of them
//	{apps}              hash    id to version 1, 7 revision, data
//	{apps}:r            string  the newest revision, in decimal
//
// Only the nodes and the apps live for ever. The index and what a node has used end with the
// node, when it is buried.
//
// The package starts goroutines in Run only, four and those that bury.
package redis
