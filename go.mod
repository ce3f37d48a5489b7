module letshare-server

go 1.26.0
