#!/usr/bin/perl
# eat.pl VICTIM: a job that takes memory until the kernel has killed VICTIM, which it sees to: `front`, `keeper` or
# `guard` of its own run, or `job`, this process.
use strict;
use warnings;

sub parent_of {
    my ($pid) = @_;
    open my $stat, '<', "/proc/$pid/stat" or return 0;
    return <$stat> =~ /\) \S (\d+)/ ? $1 : 0;
}

my $guard = getppid;
my $front = parent_of($guard);
my ($keeper) = grep { $_ != $guard && parent_of($_) == $front } map { m{(\d+)} } glob '/proc/[0-9]*';
my %pid = (front => $front, keeper => $keeper, guard => $guard, job => $$);
my $victim = $pid{$ARGV[0]} or die "no $ARGV[0]";
open my $first, '>', "/proc/$victim/oom_score_adj" or die "oom_score_adj: $!";
print $first '1000';
close $first or die "oom_score_adj: $!";
my @eaten;
push @eaten, 'x' x 262144 while kill 0, $victim;
# Where it holds on to it, those who are left read their own program from the disk again and again, and get nowhere.
undef @eaten;
# who is left ends this one, or nobody does
sleep 1 while 1;
