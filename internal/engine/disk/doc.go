// Package disk is the engine whose persisted channels outlive the process.
package disk
