// Package vcdiff makes deltas in the VCDIFF format of RFC 3284: what is new in some bytes,
// told to one who has others that are much like them.
//
// A delta has one window, whose source segment is the whole base. It uses the default code
// table, ADD and COPY, and neither secondary compression, nor checksums, nor copies from the
// target, nor what the decoder of one of Ably's SDKs cannot read.
package vcdiff
