/* The libzt 1.8.4 wheel leaves four symbols undefined: three members of the class that changes the
 * kernel's routes, which a library in user space has no use for, and one private function of
 * CPython that newer versions have dropped.  Nothing here is ever called; it only has to exist.
 */
void _ZN8ZeroTier12LinuxNetLinkC1Ev(void) {}
void _ZN8ZeroTier12LinuxNetLinkD1Ev(void) {}
void _ZN8ZeroTier12LinuxNetLink8delRouteERKNS_11InetAddressES3_S3_PKc(void) {}
int _PyTime_AsTimeval_noraise(void) { return -1; }
