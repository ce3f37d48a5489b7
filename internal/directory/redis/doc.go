// Package redis is the directory whose store is Redis 7 or later: one server, a Redis Cluster,
// or a primary behind Sentinel.
package redis
