/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel that says when it was reached, and ends the machine: the counter's low 32 bits in
   hexadecimal digits of the letters A to P, on the serial port. */
    .section .note.pvh, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long _start

    .text
    .code32
    .globl _start
_start:
    rdtsc
    mov %eax, %ebx
    mov $8, %ecx
    mov $0x3f8, %edx
1:  rol $4, %ebx
    mov %ebx, %eax
    and $15, %eax
    add $'A', %eax
    outb %al, %dx
    loop 1b
    /* An interrupt without a table to look it up in is a reset. */
    push $0
    push $0
    lidt (%esp)
    int3
