#!/usr/bin/perl
# Runs commands on a machine of the lab. One connection each: the command up to a NUL; its output comes back as it is
# written, and after it a NUL and the exit code. The command outlives a connection that is closed.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => 7000, Listen => 64, ReuseAddr => 1)
    or die "$ARGV[0]: $!";
$SIG{CHLD} = 'IGNORE';
while (1) {
    my $peer = $server->accept or next;
    if (fork) { close $peer; next }
    close $server;
    $SIG{CHLD} = 'DEFAULT';
    my ($command, $part) = ('', '');
    until ($command =~ s/\0\z//) {
        sysread($peer, $part, 65536) or exit 1;
        $command .= $part;
    }
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        require POSIX;
        POSIX::setsid();
        open STDIN, '<', '/dev/null';
        open STDOUT, '>&', $peer;
        open STDERR, '>&', $peer;
        close $peer;
        exec '/bin/bash', '-c', $command;
    }
    waitpid $pid, 0;
    my $code = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    syswrite $peer, "\0$code";
    exit 0;
}
