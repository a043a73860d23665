#!/bin/sh
# Makes demo.flv, the clip that loops at live/demo: ten seconds of a moving
# test picture with a running clock and a quiet tone, H.264 main without B
# frames (so that decode and presentation times agree) and AAC, one key frame
# a second. Run it by hand in this folder when the clip has to change; it
# needs an ffmpeg with libx264 and drawtext.
set -eu
ffmpeg -hide_banner -loglevel error -y \
	-f lavfi -i "color=c=0x10202c:size=640x360:rate=20:duration=10" \
	-f lavfi -i "color=c=0x2bb3a3:size=64x6:rate=20:duration=10" \
	-f lavfi -i "testsrc2=size=200x200:rate=20:duration=10" \
	-f lavfi -i "sine=frequency=330:sample_rate=44100:duration=10" \
	-filter_complex "[0][2]overlay=x=390:y=64[a];
		[a][1]overlay=x='mod(t*70.4,704)-64':y=318[b];
		[b]drawtext=font=Sans:text='srsx':fontsize=72:fontcolor=white:x=48:y=78,
		drawtext=font=Sans:text='live/demo':fontsize=26:fontcolor=0x8fb3c4:x=52:y=160,
		drawtext=font=Mono:text='%{pts\:hms}':fontsize=34:fontcolor=0x2bb3a3:x=50:y=216[v];
		[3]volume=0.15[s]" \
	-map "[v]" -map "[s]" \
	-c:v libx264 -profile:v main -preset veryslow -tune animation -pix_fmt yuv420p -crf 30 -maxrate 230k -bufsize 230k \
	-bf 0 -g 20 -keyint_min 20 -sc_threshold 0 \
	-c:a aac -b:a 32k -ac 1 -ar 44100 \
	-map_metadata -1 -fflags +bitexact -flvflags no_duration_filesize \
	-f flv demo.flv
