import { expect, test } from 'vitest'
import { ifMatch, ifNoneMatch } from './conditional.ts'

test.each([
  [undefined, undefined],
  ['*', undefined],
  ['"1"', [1]],
  ['"1", "22"', [1, 22]],
  [' "1" ,"2", ', [1, 2]],
  [',"1",, "2",,', [1, 2]],
  ['W/"1", "2"', [2]],
  ['"abc", "0", "01", "9999999999"', []],
  ['"a,b", "3"', [3]],
])('If-Match %s lets a change start from %j', (value, versions) => {
  expect(ifMatch(value)).toEqual(versions)
})

test.each(['1', '"1', '1"', '"1" "2"', 'w/"1"', '*, "1"', '', ' ', ',', '"\u0000"'])('%j is malformed', (value) => {
  expect(() => ifMatch(value)).toThrow(expect.objectContaining({ status: 400 }))
  expect(() => ifNoneMatch(value)).toThrow(expect.objectContaining({ status: 400 }))
})

test.each([
  [undefined, undefined],
  ['*', true],
  ['"1"', true],
  ['W/"1"', true],
  ['"2", W/"1"', true],
  ['"2"', false],
])('If-None-Match %s of version 1: %s', (value, same) => {
  expect(ifNoneMatch(value)?.(1)).toBe(same)
})
