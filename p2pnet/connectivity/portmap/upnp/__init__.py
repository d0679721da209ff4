"""UPnP's Internet Gateway Device, versions 1 and 2: found by multicast, told what to do in XML."""
