/*
 * Search on pages that are opened from a disk.
 *
 * Browsers refuse to start a Worker from a file. The theme then asks a public host for a
 * replacement; this is ours, so that no other host is needed. It runs the worker's script in a
 * hidden frame and passes messages to and fro.
 */
;(function () {
  if (location.protocol !== "file:") return

  class FrameWorker extends EventTarget {
    constructor(url) {
      super()
      this.onmessage = null
      this.onerror = null
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.inside = frame.contentWindow
      const source = new URL(url, location.href).href
      this.ready = new Promise((resolve) => {
        frame.contentWindow.started = resolve
      })
      frame.contentDocument.open()
      frame.contentDocument.write(
        "<script>" +
          "postMessage = function (data) { parent.postMessage({ frameWorker: data }, '*') };" +
          "importScripts = function () {" +
          "  return Array.from(arguments).reduce(function (before, url) {" +
          "    return before.then(function () {" +
          "      return new Promise(function (resolve, reject) {" +
          "        var script = document.createElement('script');" +
          "        script.src = url; script.onload = resolve; script.onerror = reject;" +
          "        document.body.appendChild(script) }) }) }, Promise.resolve()) }" +
          "<\/script><body><script src='" + source + "' onload='started()'><\/script>"
      )
      frame.contentDocument.close()
      window.addEventListener("message", (event) => {
        if (event.source !== this.inside || !event.data || !("frameWorker" in event.data)) return
        event.stopImmediatePropagation()
        const message = new MessageEvent("message", { data: event.data.frameWorker })
        this.dispatchEvent(message)
        if (this.onmessage) this.onmessage(message)
      })
    }

    postMessage(data) {
      this.ready.then(() => {
        this.inside.dispatchEvent(new MessageEvent("message", { data }))
      })
    }

    terminate() {}
  }

  window.Worker = FrameWorker
})()
