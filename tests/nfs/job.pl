#!/usr/bin/perl
# job.pl ADDRESS PORT: a job that tells the witness every 50 ms that it lives, until the witness says that it may end.
# It does all that a job can do to outlive its lock: TERM doesn't end it, the part that tells is in a session of its
# own, and a refusal by the witness doesn't either.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();

$SIG{TERM} = $SIG{INT} = $SIG{HUP} = 'IGNORE';
my $pid = fork // die "fork: $!";
if ($pid) {
    waitpid $pid, 0;
    exit($? >> 8 || $? & 127);
}
POSIX::setsid();
my $witness = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Proto => 'tcp') or die "no witness: $!";
my $host = (POSIX::uname())[1];
while (1) {
    syswrite $witness, "$ENV{JOBLOCK_JOB} $ENV{JOBLOCK_TOKEN} $host\n" or die "no witness: $!";
    my $answer = <$witness> // die 'no witness';
    exit 0 if $answer eq "end\n";
    select undef, undef, undef, 0.05;
}
