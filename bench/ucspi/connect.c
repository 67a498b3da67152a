/* connect PORT COUNT: connections to 127.0.0.1, one after the other, each read to its end; prints how many
   were told "yes". */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int words, char **word)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int count, number, yes = 0;

    if (words < 3)
        return 2;
    place.sin_port = htons(atoi(word[1]));
    count = atoi(word[2]);
    for (number = 0; number < count; number++) {
        int got = 0, size, client = socket(AF_INET, SOCK_STREAM, 0);
        char answer[64];
        if (client < 0 || connect(client, (struct sockaddr *)&place, sizeof place)) {
            perror("connect");
            return 1;
        }
        while (got < (int)sizeof answer && (size = read(client, answer + got, sizeof answer - got)) > 0)
            got += size;
        yes += got > 0 && answer[0] == 'y';
        close(client);
    }
    printf("%d\n", yes);
    return 0;
}
