// Package filter decides which messages a filtered channel, "[filter=…]name", delivers.
//
// An expression is JMESPath over an object with what Ably lets filters see of a message,
// {"name": …, "headers": {…}} (headers is extras.headers), and its clientId. A message
// passes if the result is true as JMESPath understands it: anything but null, false and
// what is empty.
//
// Expressions come from clients and are run for each message, so they are bounded twice.
// Compile refuses those that are long or have many parts. Matches
// counts steps: one for each node that is evaluated and each element that is looked at, and
// more for long texts. A message on which an expression spends more than maxSteps does not
// pass. No expression can therefore cost more than some 100 µs of a message.
//
// Of JMESPath there is everything but expression references and the functions that take one
// (map, sort_by, max_by, min_by, group_by), and of its community edition the arithmetic and
// "$", but neither let nor the functions that make long texts. The parser is a library; the
// evaluation is ours, because libraries know no bounds: "[@,@]|[@,@]|…" doubles a value with
// each step.
//
// Functions may be called from any goroutine; nothing is kept between two messages.
package filter
