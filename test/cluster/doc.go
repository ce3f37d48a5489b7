// Package cluster starts several nodes of the server on one Redis, as processes, breaks them on
// purpose, and talks to them over sockets. Its tests hold the nodes to what
// docs/operations/cluster.md promises; other packages' tests borrow the nodes.
package cluster
