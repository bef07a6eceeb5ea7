#!/usr/bin/env bash
# Makes src/demo/clip.flv, the clip that `ringcast demo` loops. Needs Debian 12's ffmpeg.
#
#   ci/make-demo-clip.sh [OUTPUT]
#
# The clip is 10.24 s long because that is the shortest length near 10 s at which both tracks end
# on the same sample: 256 pictures at 25 fps and 441 AAC frames of 1,024 samples at 44.1 kHz are
# both 451,584 samples. So a loop adds 10,240 ms to every timestamp and has no gap and no overlap.
#
# Picture: ffmpeg's testsrc2, and a white square that flashes with each chime. Closed GOPs of 64
# pictures (2.56 s), two B-frames, so that composition times are part of the demo.
# Sound: a chime every 1.28 s, at a pitch that has whole periods in that time. Three lengths are
# encoded and the middle one is kept, so that the overlapping AAC windows join at the loop point.
#
# With B-frames the first picture is shown 80 ms after its dts. The sound is turned round by three
# AAC frames (69.66 ms) so that it starts inside the same 10,240 ms as the pictures' dts: the tags
# of the file are then in order across the loop point, and sound and picture stay in step.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-src/demo/clip.flv}

pictures=256
gop=64
aac_frames=441

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quiet=(-hide_banner -loglevel error -nostdin -y)
exact=(-fflags +bitexact -flags:v +bitexact -flags:a +bitexact)

ffmpeg "${quiet[@]}" \
  -f lavfi -i "testsrc2=size=640x360:rate=25,\
drawbox=x=592:y=8:w=40:h=40:color=white:t=fill:enable='lt(mod(t,1.28),0.12)'" \
  -frames:v "$pictures" -pix_fmt yuv420p \
  -c:v libx264 -profile:v main -preset veryslow -tune zerolatency -bf 2 -b_strategy 0 \
  -g "$gop" -keyint_min "$gop" -sc_threshold 0 -threads 1 \
  -crf 28 -maxrate 360k -bufsize 360k \
  -x264-params open-gop=0:scenecut=0:rc-lookahead=40:sync-lookahead=0 \
  "${exact[@]}" "$work/video.mp4"

chime='0.25*exp(-5*mod(t,1.28))*(sin(2*PI*440.625*t)+0.4*sin(2*PI*881.25*t))'
ffmpeg "${quiet[@]}" \
  -f lavfi -i "aevalsrc='$chime|$chime':s=44100:d=30.72" \
  -c:a aac -b:a 64k "${exact[@]}" "$work/long.m4a"
# The encoder's first packet is priming (1,024 samples before zero), so frame 0 is packet 1.
first=$((aac_frames + 1 - 3))
ffmpeg "${quiet[@]}" -i "$work/long.m4a" -c copy \
  -bsf:a "noise=drop='lt(n,$first)+gte(n,$first+$aac_frames)',setts=ts=N*1024" \
  "${exact[@]}" "$work/audio.mp4"

ffmpeg "${quiet[@]}" -i "$work/video.mp4" -itsoffset -0.069660 -i "$work/audio.mp4" \
  -map 0:v -map 1:a -c copy \
  -flvflags no_duration_filesize+no_sequence_end "${exact[@]}" -f flv "$out"

count() {
  ffprobe -loglevel error -select_streams "$1" -count_packets \
    -show_entries stream=nb_read_packets -of csv=p=0 "$out" | tr -dc 0-9
}
[ "$(count v)" = "$pictures" ] || { echo "clip: $(count v) pictures, not $pictures" >&2; exit 1; }
[ "$(count a)" = "$aac_frames" ] ||
  { echo "clip: $(count a) AAC frames, not $aac_frames" >&2; exit 1; }
ls -l "$out"
