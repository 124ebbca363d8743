# How often what was tried, as docs/reliability.md has it.  .ci/figures makes docs/tried.svg of it.
$tried << END
"stores at which a process died (crash_test)" 9848
"kill -9 of all, then a mount (kill_weather)" 10000
"kills and upgrades below calls (takeover_weather)" 10000
"checkpoints of random operations (checkpoint_sequences)" 2091
"hostile regions and requests (fuzzing)" 1250000
"bits flipped in metadata (scribble_test)" 442368
"cycles of a soak" 2238
END
set style fill solid
set logscale x
set xrange [100:1e7]
set yrange [6.6:-0.6] 
set format x '%.0f'
set grid x
unset key
set title 'How often, each time as before or as after'
plot $tried using 2:0:(100):2:($0-0.3):($0+0.3):ytic(1) with boxxyerror lc rgb '#2060c0'
