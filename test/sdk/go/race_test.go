//go:build race

package sdk

const unplugClients = 60 // half of them in each format
