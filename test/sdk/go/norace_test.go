//go:build !race

package sdk

const unplugClients = 200 // half of them in each format
