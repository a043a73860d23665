// Plays ?stream=app/name&via=flv|hls from the peer that served the page.
const $ = (id) => document.getElementById(id);
const video = $('video');
const form = $('form');
let stop = () => {};

// What a test of the page looks at.
window.srsx = {
  error: '',
  get decodedFrames() { return video.getVideoPlaybackQuality().totalVideoFrames; },
  get currentTime() { return video.currentTime; },
};

function say(text, failed = false) {
  $('status').textContent = text;
  window.srsx.error = failed ? text : '';
}

function playFLV(url) {
  const player = mpegts.createPlayer({ type: 'flv', isLive: true, url }, { liveBufferLatencyChasing: true });
  player.on(mpegts.Events.ERROR, (kind, detail) => say(`${kind}: ${detail}`, true));
  player.attachMediaElement(video);
  player.load();
  return () => player.destroy();
}

function playHLS(url) {
  if (!Hls.isSupported()) {
    video.src = url;
    return () => video.removeAttribute('src');
  }
  const hls = new Hls();
  hls.on(Hls.Events.ERROR, (_, e) => { if (e.fatal) say(`${e.type}: ${e.details}`, true); });
  hls.loadSource(url);
  hls.attachMedia(video);
  return () => hls.destroy();
}

function play() {
  stop();
  const { stream, via } = Object.fromEntries(new FormData(form));
  const path = stream.split('/').map(encodeURIComponent).join('/');
  const url = new URL(`/${path}.${via === 'hls' ? 'm3u8' : 'flv'}`, location.href).href;
  $('url').textContent = url;
  say('connecting');
  stop = via === 'hls' ? playHLS(url) : playFLV(url);
  video.play().catch(() => {}); // a browser may want a click first
}

video.addEventListener('playing', () => say('playing'));
video.addEventListener('waiting', () => say('waiting for media'));
form.addEventListener('submit', (event) => { event.preventDefault(); play(); });

const wanted = new URLSearchParams(location.search);
for (const name of ['stream', 'via']) {
  if (wanted.get(name)) form.elements[name].value = wanted.get(name);
}
play();
