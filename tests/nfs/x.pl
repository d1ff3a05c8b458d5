#!/usr/bin/perl
# x.pl ADDRESS COMMAND: see agent.pl.
use strict;
use warnings;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_KEEPALIVE TCP_KEEPCNT TCP_KEEPIDLE TCP_KEEPINTVL);

my ($address, $command) = @ARGV;
my $agent = IO::Socket::INET->new(PeerAddr => $address, PeerPort => 7000, Timeout => 5);
if (!$agent) { print STDERR "lab: $address is not reachable: $!\n"; exit 255 }
# a machine that lost its power says nothing any more; one that is frozen may come back
setsockopt $agent, SOL_SOCKET, SO_KEEPALIVE, 1;
setsockopt $agent, IPPROTO_TCP, TCP_KEEPIDLE, 60;
setsockopt $agent, IPPROTO_TCP, TCP_KEEPINTVL, 10;
setsockopt $agent, IPPROTO_TCP, TCP_KEEPCNT, 3;
syswrite $agent, "$command\0";
my ($all, $part, $printed) = ('', '', 0);
while (sysread $agent, $part, 65536) {
    $all .= $part;
    # what follows the last NUL may be the exit code
    my $end = rindex $all, "\0";
    $end = length $all if $end < 0;
    if ($end > $printed) { syswrite STDOUT, substr($all, $printed, $end - $printed); $printed = $end }
}
if ($all =~ /\0(\d+)\z/) { exit $1 }
print STDERR "lab: $address went away\n";
exit 255;
