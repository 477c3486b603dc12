import type { OnReadOpts } from 'node:net'

/** What a read takes at most: as much as Node's own. */
const READ_BYTES = 64 * 1024
/** A message begins with its type, of 1 byte, and its length without that, of 4 (PostgreSQL, section 54.1.1). */
const HEADER_BYTES = 5

/** How many of the first `length` bytes are whole messages. */
function wholeMessages(bytes: Buffer, length: number): number {
  let whole = 0
  while (whole + HEADER_BYTES <= length) {
    const next = whole + 1 + bytes.readUInt32BE(whole + 1)
    if (next > length) break
    whole = next
  }
  return whole
}

/**
 * Lets a socket read from PostgreSQL into one buffer over and over. Node's own reads make a buffer each, which is
 * freed only when V8 collects, and V8 does not collect sooner for them: tens of MB amid a stream of users.
 * `receive` is given whole messages, and must be done with them when it returns.
 */
export function readBuffer(receive: (messages: Buffer) => void): OnReadOpts {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
  /** The beginning of a message whose end is still to come; as large as the largest that came in parts. */
  let begun = Buffer.allocUnsafeSlow(READ_BYTES)
  let begunBytes = 0

  return {
    buffer,
    callback(readBytes) {
      let bytes = buffer
      let length = readBytes
      if (begunBytes > 0) {
        length += begunBytes
        if (length > begun.length) begun = Buffer.concat([begun], 2 * length)
        buffer.copy(begun, begunBytes, 0, readBytes)
        bytes = begun
      }
      const whole = wholeMessages(bytes, length)
      if (whole > 0) receive(bytes.subarray(0, whole))
      if (whole > 0 || bytes === buffer) bytes.copy(begun, 0, whole, length)
      begunBytes = length - whole
      return true
    },
  }
}
