import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readBuffer } from './read-buffer.ts'

const message = fc
  .oneof({ weight: 9, arbitrary: fc.nat(300) }, { weight: 1, arbitrary: fc.nat(200_000) })
  .chain((length) => fc.tuple(fc.nat(255), fc.constant(length), fc.nat(255)))
  .map(([type, length, byte]) => {
    const bytes = Buffer.alloc(5 + length, byte)
    bytes.writeUInt8(type)
    bytes.writeUInt32BE(4 + length, 1)
    return bytes
  })

/** Where the messages in `bytes` end; the last may be cut. */
function ends(bytes: Buffer): number[] {
  const found = []
  for (let end = 0; end < bytes.length; ) {
    end += 1 + bytes.readUInt32BE(end + 1)
    found.push(end)
  }
  return found
}

test('however a socket cuts them, messages arrive as they were sent, and only whole', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 30 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 65_536 })),
      (sent, cuts) => {
        const received: Buffer[] = []
        const { buffer, callback } = readBuffer((messages) => void received.push(Buffer.from(messages)))
        const all = Buffer.concat(sent)
        for (let at = 0; at < all.length; ) {
          const part = all.subarray(at, at + (cuts.next().value as number))
          expect(callback(part.copy(buffer as Buffer), buffer as Buffer)).toBe(true)
          at += part.length
        }
        expect(Buffer.concat(received).equals(all)).toBe(true)
        for (const messages of received) expect(ends(messages).at(-1)).toBe(messages.length)
      },
    ),
    { numRuns: 300 },
  )
})

test('a byte at a time is enough', () => {
  const received: string[] = []
  const { buffer, callback } = readBuffer((messages) => void received.push(messages.toString('latin1')))
  const sent = ['Z\0\0\0\x05I', 'C\0\0\0\x0bSELECT\0', '1\0\0\0\x04']
  for (const byte of Buffer.from(sent.join(''), 'latin1')) {
    ;(buffer as Buffer).writeUInt8(byte)
    callback(1, buffer as Buffer)
  }
  expect(received).toEqual(sent)
})
