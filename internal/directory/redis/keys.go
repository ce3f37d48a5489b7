package redis

import (
	"strings"

	"letshare-server/internal/directory"
)

// keys makes the names of keys; see doc.go.
type keys string

// nodeID stands for a node in keys and values.
func nodeID(n directory.Node) string { return n.Name + "/" + n.Incarnation }

// nodeOf is the inverse of nodeID.
func nodeOf(id string) directory.Node {
	i := max(strings.LastIndexByte(id, '/'), 0)
	return directory.Node{Name: id[:i], Incarnation: strings.TrimPrefix(id[i:], "/")}
}

// connection is the record, and the channels where it has members.
func (k keys) connection(id string) []string {
	record := string(k) + "c{c:" + id + "}"
	return []string{record, record + ":w"}
}

// connected is how many connections of an app are Connected.
func (k keys) connected(app string) string { return string(k) + "i{a:" + app + "}" }

// index is the connections of an app that a node answers for.
func (k keys) index(app, node string) string { return k.connected(app) + ":" + node }

// nodes are those that live, and those that are gone and not buried.
func (k keys) nodes() []string { return []string{string(k) + "{nodes}", string(k) + "{nodes}:gone"} }

// burying is the lock of who buries a node.
func (k keys) burying(node string) string { return string(k) + "l{n:" + node + "}" }

// notices are those for a node.
func (k keys) notices(node string) string { return string(k) + "n{n:" + node + "}" }

// used are the parts of the store where a node has left something.
func (k keys) used(node string) string { return string(k) + "x{n:" + node + "}" }

func (k keys) orphans() string { return string(k) + "{orphans}" }
